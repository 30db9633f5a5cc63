"""Features -> numbers: the protocols of both tasks, figures with confidence intervals, re-ranking. No torch."""
