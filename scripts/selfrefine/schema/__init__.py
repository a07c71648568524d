"""Configuration, stage settings, rows and records: pydantic and typed rows, without torch."""
