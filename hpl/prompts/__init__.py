"""Hierarchical prompts: template, inversion networks, and stage I, which constructs them."""
