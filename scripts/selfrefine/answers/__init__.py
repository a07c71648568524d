"""Extracts answers from completions and judges them; needs nothing else of the library."""
