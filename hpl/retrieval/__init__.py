"""A model on a data set: features, similarities, figures; one driver for validation, evaluation and ablation."""
