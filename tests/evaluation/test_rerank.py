"""Re-ranking against the paper's procedure, written out densely."""

import tracemalloc

import numpy as np
import pytest

from hpl.evaluation import similarity
from hpl.evaluation.protocols import Rule
from hpl.evaluation.rerank import reranked_blocks
from hpl.evaluation.scores import Scores
from hpl.evaluation.similarity import cosine_blocks, unit


def people(seed: int, num_queries: int, num_gallery: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit features of a few people each."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((8, 6))
    left, right = (centres[generator.integers(0, 8, count)] for count in (num_queries, num_gallery))
    return unit(left + 0.4 * generator.standard_normal(left.shape)), unit(right + 0.4 * generator.standard_normal(right.shape))


def dense(left: np.ndarray, right: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """Zhong et al., section 3, as in the authors' code: Q x G final distances, float64."""
    features = np.concatenate([left, right]).astype(np.float64)
    count = len(features)
    distance = 2 - 2 * features @ features.T
    distance /= distance.max(axis=1, keepdims=True)
    ranking = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(picture: int, k: int) -> list[int]:
        return [other for other in ranking[picture, : k + 1] if picture in ranking[other, : k + 1]]

    described = np.zeros((count, count))
    for picture in range(count):
        own = reciprocal(picture, k1)
        joined = set(own)
        for other in own:
            theirs = reciprocal(other, round(k1 / 2))
            if len(set(theirs) & set(own)) > 2 / 3 * len(theirs):
                joined |= set(theirs)
        joined = sorted(joined)
        described[picture, joined] = np.exp(-distance[picture, joined])
        described[picture] /= described[picture].sum()
    if k2 > 1:
        described = np.stack([described[ranking[picture, :k2]].mean(axis=0) for picture in range(count)])
    final = np.empty((len(left), len(right)))
    for query in range(len(left)):
        for picture in range(len(right)):
            smaller = np.minimum(described[query], described[len(left) + picture]).sum()
            larger = np.maximum(described[query], described[len(left) + picture]).sum()
            final[query, picture] = (1 - weight) * (1 - smaller / larger) + weight * distance[query, len(left) + picture]
    return final


@pytest.mark.parametrize("k1, k2, weight", [(20, 6, 0.3), (5, 1, 0.0), (4, 3, 1.0), (1, 1, 0.5), (60, 50, 0.3)])
def test_against_the_dense_procedure(k1: int, k2: int, weight: float) -> None:
    left, right = people(k1, 5, 35)
    got = np.concatenate([block.copy() for _, block in reranked_blocks(left, right, k1, k2, weight)])
    np.testing.assert_allclose(got, 1 - dense(left, right, k1, k2, weight), atol=2e-6)


def test_the_block_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "TILE", (64, 64))
    left, right = people(0, 150, 70)
    whole, small = (
        np.concatenate([part.copy() for _, part in reranked_blocks(left, right, 10, 3, 0.3, block)]) for block in (1000, 64)
    )
    assert whole.tobytes() == small.tobytes()


def test_it_helps_where_people_form_groups() -> None:
    generator = np.random.default_rng(0)
    pids = generator.integers(0, 30, 360)
    features = unit(generator.standard_normal((30, 24))[pids] + 0.9 * generator.standard_normal((360, 24)))
    left, right, rule = features[:60], features[60:], Rule(pids[:60] + 1, pids[60:] + 1)
    before, after = (
        Scores.of(blocks, rule).figures()["mAP"]
        for blocks in (cosine_blocks(left, right), reranked_blocks(left, right, 10, 4, 0.3))
    )
    assert 50 < before < 90 and after > before + 5


def test_there_is_never_a_matrix_of_all_by_all() -> None:
    left, right = people(0, 100, 1400)
    tracemalloc.start()
    for _ in reranked_blocks(left, right, 6, 2, 0.3, 128):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1500 * 1500 * 4, peak


@pytest.mark.parametrize("k2", [1, 6])
def test_more_equal_queries_than_neighbours(k2: int) -> None:
    """22 captions that read the same: the later ones do not stand among their own 21 neighbours."""
    generator = np.random.default_rng(0)
    left = unit(np.repeat(generator.standard_normal((1, 8)), 30, axis=0))
    right = unit(generator.standard_normal((40, 8)))
    found = np.concatenate([block.copy() for _, block in reranked_blocks(left, right, 20, k2, 0.3)])
    assert found.shape == (30, 40) and np.isfinite(found).all()
