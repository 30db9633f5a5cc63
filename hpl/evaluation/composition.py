"""The score of a picture and a sentence together: one definition for evaluation and search (docs/evaluation.md)."""

import numpy as np

from hpl.evaluation.similarity import unit


def standardised(scores: np.ndarray, mean: np.ndarray | float, deviation: np.ndarray | float) -> np.ndarray:
    """Bring scores to mean 0 and deviation 1 of whatever these two are of."""
    return (scores - mean) / np.maximum(deviation, 1e-12)


def mixed_query(text_QD: np.ndarray, pictures_QD: np.ndarray, weight: float) -> np.ndarray:
    """Mix t_eos (of this weight, 0..1) and v_t2i of query pictures, each of unit length. Returns Q x D of unit length."""
    return unit(weight * text_QD + (1 - weight) * pictures_QD)


def composed_scores(together_N: np.ndarray, picture_N: np.ndarray, counted: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Average two similarities of one query, each brought to mean 0 and deviation 1 over its gallery.

    Args:
        together_N: cosines of the mixed query with v_t2i; picture_N: of v_i2i with v_i2i.
        counted: the places, or a mask, of the query's gallery among the N. Without any, all scores are 0.
    """

    def scaled(row_N: np.ndarray) -> np.ndarray:
        left = row_N[counted]
        return standardised(row_N, left.mean(), left.std()) if len(left) else np.zeros_like(row_N)

    return (scaled(together_N) + scaled(picture_N)) / 2
