"""Engines generate: chats in, completions out, by id."""
