"""A study's page, index.html: verdicts, figures, tables, and a reader of every response."""
