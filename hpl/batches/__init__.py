"""Rows of manifests -> batches of tensors: transforms, composition, loaders."""
