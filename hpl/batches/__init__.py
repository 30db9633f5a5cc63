"""Rows of manifests -> tensors: transforms, the composition of batches, loaders, and feature extraction."""
