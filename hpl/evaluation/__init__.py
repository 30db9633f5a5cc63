"""Features -> numbers: the protocols of both tasks."""

from hpl.evaluation.metrics import retrieval_metrics, stream_scores, summarise

__all__ = ["retrieval_metrics", "stream_scores", "summarise"]
