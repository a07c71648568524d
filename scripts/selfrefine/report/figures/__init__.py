"""The study's figures."""
