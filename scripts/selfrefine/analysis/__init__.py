"""Statistics of judged answers: intervals, comparisons, claims, pass@k, lengths, costs."""
