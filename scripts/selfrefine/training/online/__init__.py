"""Online refinement: a student samples completions as it learns, and learns from their verdicts."""
