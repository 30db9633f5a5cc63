"""Scores from features in blocks: those of the whole matrix, whatever the block; and thousands of small cases against a naive
loop."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from hpl.evaluation import metrics, similarity
from hpl.evaluation.metrics import score_block
from hpl.evaluation.protocols import Rule
from hpl.evaluation.scores import retrieval_metrics
from hpl.evaluation.similarity import cosine_blocks, unit
from hpl.files import HplError
from tests.support.scoring import score_features


def features(seed: int, count: int, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)


def stream_scores(left: np.ndarray, right: np.ndarray, *people: np.ndarray, **options: int) -> pd.DataFrame:
    return score_features(left, right, Rule(*people), **options).table


def naive(
    row: np.ndarray, pid: int, gallery_pids: np.ndarray, camid: int | None, gallery_camids: np.ndarray, itself: np.ndarray
) -> tuple:
    """num_matches, first_rank, ap and inp of one query by sorting in Python, without itself; wrong before right of a tie."""
    kept = [g for g in range(len(row)) if gallery_pids[g] != -1 and not itself[g]]
    if camid is not None:
        kept = [g for g in kept if not (gallery_pids[g] == pid and gallery_camids[g] == camid)]
    order = sorted(kept, key=lambda g: (-row[g], gallery_pids[g] == pid))
    ranks = [rank for rank, g in enumerate(order, 1) if gallery_pids[g] == pid]
    if not ranks or (camid is not None and pid <= 0):
        return 0, 0, np.nan, np.nan
    return len(ranks), ranks[0], sum(hit / rank for hit, rank in enumerate(ranks, 1)) / len(ranks), len(ranks) / ranks[-1]


@st.composite
def cases(draw: st.DrawFn) -> tuple:
    """A few queries and pictures whose scores tie often, with junk, distractors, and people who are not there."""
    queries, gallery = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    levels = draw(st.sampled_from([1, 2, 4, 50]))
    scores = draw(arrays(np.int64, (queries, gallery), elements=st.integers(0, levels - 1))).astype(np.float32) / 64
    pids, camids = st.integers(-1, 3), st.integers(-1, 2)
    ids = [draw(arrays(np.int64, count, elements=of)) for of in (pids, camids) for count in (queries, gallery)]
    pixels = [draw(arrays(np.int64, count, elements=st.integers(0, 3))) for count in (queries, gallery)]
    return scores, ids, pixels, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=250, deadline=None)
@given(cases(), st.sampled_from([1, metrics.SORT_FROM]))
def test_scores_against_a_naive_loop(case: tuple, sort_from: int) -> None:
    scores, (query_pids, gallery_pids, query_camids, gallery_camids), pixels, by_camera, by_pixels = case
    rule = Rule(
        query_pids,
        gallery_pids,
        *((query_camids, gallery_camids) if by_camera else (None, None)),
        *(pixels if by_pixels else (None, None)),
    )
    itself = (pixels[0][:, None] == pixels[1]) & by_pixels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "SORT_FROM", sort_from)
        got = score_block(scores[:, rule.kept], rule)
    asked = zip(scores, query_pids, query_camids, itself)
    expected = [
        naive(row, pid, gallery_pids, camid if by_camera else None, gallery_camids, own) for row, pid, camid, own in asked
    ]
    np.testing.assert_allclose(got.to_numpy(), np.array(expected, float), rtol=1e-12)
    assert rule.num_copies == itself[:, gallery_pids != -1].sum()


def test_average_precision_is_that_of_scikit_learn_without_ties() -> None:
    generator = np.random.default_rng(1)
    scores, pids = generator.permuted(np.tile(np.arange(40.0), (400, 1)), axis=1), generator.integers(1, 5, 40)
    asked = generator.integers(1, 5, 400)
    expected = [average_precision_score(pids == pid, row) for pid, row in zip(asked, scores)]
    np.testing.assert_allclose(score_block(scores, Rule(asked, pids))["ap"], expected, rtol=1e-12)


def test_a_model_that_gives_all_the_same_scores_what_chance_or_less_would() -> None:
    pids = np.repeat(np.arange(1, 11), 10)
    same = np.ones((100, 8), np.float32)
    figures = score_features(same[:10], same, Rule(np.arange(1, 11), pids)).figures()
    assert figures["rank1"] == figures["rank10"] == 0 and figures["mAP"] < 10


SIZES = [(1, 1), (1, 300), (700, 64), (300, 1027)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_block_changes_no_bit(sizes: tuple[int, int], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "TILE", (128, 256))  # so that small sets have several, cut and whole
    left, right = unit(features(0, sizes[0], 512)), unit(features(1, sizes[1], 512))
    generator = np.random.default_rng(2)
    pids = generator.integers(1, 20, sizes[0]), generator.integers(-1, 20, sizes[1])
    camids = generator.integers(0, 3, sizes[0]), generator.integers(0, 3, sizes[1])
    with threadpool_limits(threads):
        whole = np.concatenate([block.copy() for _, block in cosine_blocks(left, right, 10**6)])
        table = stream_scores(left, right, *pids, *camids)
        for block in (1, 7, 127, 129, 257) if threads == 1 else (7, 257):
            starts, parts = zip(*((start, part.copy()) for start, part in cosine_blocks(left, right, block)))
            assert np.concatenate(parts).tobytes() == whole.tobytes()
            assert list(starts) == np.cumsum([0, *map(len, parts[:-1])]).tolist()
            pd.testing.assert_frame_equal(stream_scores(left, right, *pids, *camids, block=block), table, check_exact=True)
    np.testing.assert_allclose(whole, left.astype(float) @ right.T.astype(float), atol=1e-6)


@pytest.mark.parametrize("tile", [(128, 256), similarity.TILE])
@pytest.mark.parametrize("width", [16, 512, 515])
def test_equal_pictures_tie_wherever_they_stand(tile: tuple[int, int], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "TILE", tile)
    for count in (3, 65, 300, 777):
        left, right = unit(features(0, 200, width)), np.repeat(unit(features(1, 1, width)), count, axis=0)
        for _, block in cosine_blocks(left, right):
            assert (block == block[:, :1]).all()
        for _, block in cosine_blocks(right, left):
            assert (block == block[:1]).all()


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_stream_agrees_exactly_with_the_matrix(seed: int, by_camera: bool) -> None:
    generator = np.random.default_rng(seed)
    num_queries, num_gallery = generator.integers(1, 40), generator.integers(1, 90)
    left, right = features(seed, num_queries, 4), features(seed + 1, num_gallery, 4)
    right[generator.random(num_gallery) < 0.3] = right[0]
    ids = [generator.integers(-1, 5, count) for _ in range(2) for count in (num_queries, num_gallery)]
    ids[1][0], ids[0][0] = 2, 2
    ids[3][0], ids[2][0] = 0, 1
    people = ids if by_camera else ids[:2]
    matrix = np.empty((num_queries, num_gallery), np.float32)
    matrix[:, ids[1] == -1] = 2  # junk must not matter
    kept = unit(right)[ids[1] != -1]
    matrix[:, ids[1] != -1] = np.concatenate([block.copy() for _, block in cosine_blocks(unit(left), kept)])
    rule = Rule(*people)
    assert score_features(left, right, rule).figures() == retrieval_metrics(matrix, rule)


def test_a_gallery_of_one_picture_and_one_of_junk() -> None:
    one = stream_scores(features(0, 2), features(1, 1), np.array([1, 2]), np.array([1]))
    assert one["num_matches"].tolist() == [1, 0] and one["first_rank"].tolist() == [1, 0]
    assert one["ap"][0] == one["inp"][0] == 1 and np.isnan(one["ap"][1])
    junk = score_features(features(0, 2), features(1, 3), Rule(np.array([1, -1]), np.array([-1, -1, -1])))
    assert junk.table["num_matches"].tolist() == [0, 0]
    with pytest.raises(HplError, match="none of the 2 queries has a match"):
        junk.figures()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(value: float) -> None:
    broken = features(1, 5)
    broken[3, 2] = value
    ids = np.array([1, 2]), np.arange(5)
    with pytest.raises(HplError, match=f"feature of gallery picture 3 holds {value}"):
        stream_scores(features(0, 2), broken, *ids)
    with pytest.raises(HplError, match=f"feature of query 3 holds {value}"):
        stream_scores(broken, features(0, 2), *ids[::-1])


@pytest.mark.parametrize("value", [1e300, -1e30])
def test_features_that_float32_cannot_square_are_named(value: float) -> None:
    broken = features(1, 5).astype(np.float64)
    broken[3, 2] = value
    with pytest.raises(HplError, match=f"gallery picture 3 holds {abs(value):g}".replace("+", r"\+")):
        stream_scores(features(0, 2), broken, np.array([1, 2]), np.arange(5))


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(HplError, match="expected 3 rows"):
        stream_scores(features(0, 2), features(1, 5), np.arange(3), np.arange(5))
    with pytest.raises(HplError, match="queries have 24 features and gallery pictures 12"):
        stream_scores(features(0, 2), features(1, 5, 12), np.arange(2), np.arange(5))


def test_memory_is_that_of_a_block() -> None:
    left, right, pids = features(0, 6000, 8), features(1, 6000, 8), np.random.default_rng(0).integers(1, 3000, 6000)
    tracemalloc.start()
    stream_scores(left, right, pids, pids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20 < 6000 * 6000 * 4 / 6
