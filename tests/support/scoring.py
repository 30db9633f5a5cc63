"""Scoring of features as the protocols do it, in one call."""

import numpy as np

from hpl.evaluation.protocols import Rule
from hpl.evaluation.scores import Scores
from hpl.evaluation.similarity import QUERY_BLOCK, cosine_blocks, unit_checked


def score_features(queries: np.ndarray, gallery: np.ndarray, rule: Rule, block: int = QUERY_BLOCK) -> Scores:
    """Scores of the cosines of features, some queries at a time."""
    left, right = unit_checked(queries, "query", len(rule.query_pids)), unit_checked(gallery, "gallery picture", len(rule.kept))
    return Scores.of(cosine_blocks(left, right[rule.kept], block), rule)
