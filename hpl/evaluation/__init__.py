"""Features -> numbers: the protocols of both tasks."""

from hpl.evaluation.metrics import rank_order, retrieval_metrics

__all__ = ["rank_order", "retrieval_metrics"]
