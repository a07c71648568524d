"""Verdicts on sampled paths, and evaluation with lm-eval."""
