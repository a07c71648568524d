"""Asks a teacher behind a server that speaks the chat-completions protocol."""
