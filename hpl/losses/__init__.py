"""Tensors -> scalar, one loss a file. A loss of a batch without what it compares is an exact zero that still has a gradient."""
