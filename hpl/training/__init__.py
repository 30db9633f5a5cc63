"""Loops: contrastive pretraining and stage II."""
