"""Hierarchical Prompt Learning: one model for image- and text-based person re-identification."""

import os

# Idle OpenMP threads sleep instead of spinning: beside another busy process, spinning made two threads ten times slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
