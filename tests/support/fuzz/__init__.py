"""Mutated inputs, seeded, against every reader of the project: `python -m tests.support.fuzz 2000 7` (`make fuzz`)."""
