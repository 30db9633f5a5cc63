"""Metrics on matrices that a reader can rank by eye, then against a naive loop and scikit-learn on random ones."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from hpl.analysis.floors import colour_histograms
from hpl.evaluation.metrics import rank_order
from hpl.evaluation.protocols import Rule
from hpl.evaluation.scores import retrieval_metrics as score
from hpl.files import HplError


def retrieval_metrics(similarity: np.ndarray, *people: np.ndarray, **cameras: np.ndarray) -> dict[str, float]:
    return score(similarity, Rule(*people, **cameras))


def test_two_queries_by_eye() -> None:
    similarity = [[0.9, 0.8, 0.1, 0.0], [0.9, 0.8, 0.7, 0.6]]
    got = retrieval_metrics(np.array(similarity), np.array([1, 2]), np.array([1, 2, 1, 2]))
    # query 0: hits at ranks 1, 3 -> AP (1 + 2/3) / 2; INP 2/3. query 1: hits at 2, 4 -> AP (1/2 + 2/4) / 2; INP 2/4
    assert got["rank1"] == 50 and got["rank5"] == 100 and got["rank10"] == 100
    assert got["mAP"] == pytest.approx(100 * (5 / 6 + 1 / 2) / 2)
    assert got["mINP"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert (got["num_queries"], got["num_skipped"]) == (2, 0)


def test_camera_rule_junk_and_distractors() -> None:
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    gallery_pids, gallery_camids = np.array([1, -1, 0, 1]), np.array([1, 2, 2, 2])
    got = retrieval_metrics(similarity, np.array([1]), gallery_pids, np.array([1]), gallery_camids)
    # same camera and junk are gone; the distractor stays before the match
    assert got["rank1"] == 0 and got["mAP"] == 50


def test_a_query_without_match_is_skipped_and_counted() -> None:
    got = retrieval_metrics(np.array([[0.1, 0.2], [0.2, 0.1]]), np.array([1, 5]), np.array([1, 2]))
    assert (got["num_queries"], got["num_skipped"]) == (1, 1)


def test_equal_similarities_are_ranked_against_us() -> None:
    got = retrieval_metrics(np.zeros((1, 10)), np.array([1]), np.arange(1, 11))
    assert got["rank1"] == 0 and got["rank10"] == 100 and got["mAP"] == pytest.approx(10)


def test_random_cases_against_a_naive_loop_and_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        queries, gallery = generator.integers(1, 6), generator.integers(1, 30)
        similarity = (
            generator.choice([0.1, 0.2, 0.3, 0.4, 0.5], (queries, gallery))
            if generator.random() < 0.3
            else generator.random((queries, gallery))
        )
        qp, gp = generator.integers(1, 4, queries), generator.integers(-1, 4, gallery)
        qc, gc = generator.integers(1, 3, queries), generator.integers(1, 3, gallery)
        expected, library = [], []
        for q in range(queries):
            kept = [g for g in range(gallery) if gp[g] != -1 and not (gp[g] == qp[q] and gc[g] == qc[q])]
            order = sorted(kept, key=lambda g: (-similarity[q, g], gp[g] == qp[q]))
            ranks = [place for place, g in enumerate(order, 1) if gp[g] == qp[q]]
            if ranks:
                precision = sum(hit / rank for hit, rank in enumerate(ranks, 1)) / len(ranks)
                expected.append([ranks[0] <= 1, ranks[0] <= 5, ranks[0] <= 10, precision, len(ranks) / ranks[-1]])
                library.append(average_precision_score(gp[kept] == qp[q], similarity[q, kept]))
        if not expected:
            with pytest.raises(HplError, match="has a match"):
                retrieval_metrics(similarity, qp, gp, qc, gc)
            continue
        got = retrieval_metrics(similarity, qp, gp, qc, gc)
        names = ("rank1", "rank5", "rank10", "mAP", "mINP")
        np.testing.assert_allclose([got[name] for name in names], 100 * np.mean(expected, axis=0), rtol=1e-9)
        if len(np.unique(similarity)) == similarity.size:
            assert got["mAP"] == pytest.approx(100 * np.mean(library))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_similarity_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(HplError, match="query 0 and gallery picture 1"):
        retrieval_metrics(np.array([[0.5, value]]), np.array([1]), np.array([1, 2]))


def test_shapes_and_lone_camids_are_refused() -> None:
    with pytest.raises(HplError, match="1 queries x 3 gallery"):
        retrieval_metrics(np.zeros((1, 2)), np.array([1]), np.array([1, 2, 3]))
    with pytest.raises(HplError, match="one side"):
        retrieval_metrics(np.zeros((1, 1)), np.array([1]), np.array([1]), query_camids=np.array([1]))
    for camids, what in ((([1, 2], [1]), "2 query camids for 1"), (([1], [1, 2]), "2 gallery camids for 1")):
        with pytest.raises(HplError, match=what):
            retrieval_metrics(np.zeros((1, 1)), np.array([1]), np.array([1]), *map(np.array, camids))
    with pytest.raises(HplError, match="pixels are given for one side"):
        retrieval_metrics(np.zeros((1, 1)), np.array([1]), np.array([1]), gallery_pixels=np.array([1]))
    with pytest.raises(HplError, match="similarity is of type object"):
        retrieval_metrics(np.array([[None]]), np.array([1]), np.array([1]))


def test_a_gallery_picture_with_the_querys_own_pixels_is_the_query() -> None:
    """By eye: under its own person, a distractor's and a stranger's name, and as junk; by another camera or an unknown one."""
    people = {"query_pids": np.array([1, 2]), "gallery_pids": np.array([1, 0, 2, -1, 1, 3])}
    cameras = {"query_camids": np.array([1, 1]), "gallery_camids": np.array([2, 3, 2, 2, 2, 2])}
    similarity = np.array([[0.9, 0.9, 0.9, 0.9, 0.2, 0.5], [0.1, 0.2, 0.8, 0.1, 0.3, 0.9]])
    pixels = {"query_pixels": np.array([7, 8]), "gallery_pixels": np.array([7, 7, 7, 7, 5, 6])}
    for given in (cameras, {}, {name: camids - 9 * (name[0] == "q") for name, camids in cameras.items()}):
        got = score(similarity, Rule(**people, **given, **pixels))
        # the first query finds 3 before 1; the second is not in the gallery: its match, whose pixels are another query's, counts
        assert (got["rank1"], got["mAP"]) == (0, 50) and got["num_copies_ignored"] == 3
        assert "num_copies_ignored" not in score(similarity, Rule(**people, **given))
    own = {"query_pixels": np.array([7, 8]), "gallery_pixels": np.array([7, 7, 8, 7, 7, 6])}
    with pytest.raises(HplError, match="none of the 2 queries has a match"):  # none but themselves
        score(similarity, Rule(**people, **cameras, **own))
    one = {"query_pixels": np.array([7, 8]), "gallery_pixels": np.array([7, 7, 7, 7, 7, 6])}
    assert (score(similarity, Rule(**people, **cameras, **one))["num_skipped"]) == 1


def test_rank_order_leaves_out_the_ignored_and_pads() -> None:
    rule = Rule(np.array([1, 2]), np.array([3, 1, -1, 4]), np.array([7, 7]), np.array([7, 7, 7, 7]))
    order = rank_order(np.array([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]]), rule, 3)
    assert order.tolist() == [[2, 0, -1], [0, 1, 2]]  # the second query's ties stand in gallery order
    assert rank_order(np.array([[0.3, 0.3, 0.5]]), rule, 2, start=1).tolist() == [[2, 0]]


def test_histograms_know_colour_and_stripe_but_not_place_in_the_stripe() -> None:
    red = np.zeros((1, 3, 12, 10), np.uint8)
    red[:, 0, :6] = 255
    moved, lower = np.roll(red, 1, axis=3), np.roll(red, 6, axis=2)
    for space in ("RGB", "HSV"):
        a, b, c = (colour_histograms(picture, space, 6, False, False) for picture in (red, moved, lower))
        assert a @ b.T == pytest.approx(1) and (a @ c.T).item() < 0.1
        a, c = (colour_histograms(picture, space, 1, False, False) for picture in (red, lower))
        assert a @ c.T == pytest.approx(1)


def test_grey_world_undoes_a_cast_and_the_middle_leaves_out_the_sides() -> None:
    image = np.random.default_rng(0).integers(60, 120, (1, 3, 12, 10)).astype(np.uint8)
    cast = np.round(image * np.array([1.0, 1.5, 2.0])[None, :, None, None]).astype(np.uint8)
    plain, corrected = (
        colour_histograms(image, "RGB", 1, grey, False) @ colour_histograms(cast, "RGB", 1, grey, False).T
        for grey in (False, True)
    )
    assert corrected > 0.8 > plain
    sides = image.copy()
    sides[..., :2] = sides[..., -2:] = 255
    assert colour_histograms(image, "HSV", 6, False, True) @ colour_histograms(sides, "HSV", 6, False, True).T == pytest.approx(1)
