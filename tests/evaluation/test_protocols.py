"""Protocols on features that a reader can rank by eye."""

import numpy as np
import pandas as pd
import pytest

from hpl.analysis.observers import RankLists, SimilarityCounts
from hpl.evaluation.protocols import task_rule
from hpl.evaluation.scores import Scores, rounded
from hpl.evaluation.similarity import cosine_blocks, unit
from hpl.tasks import I2I, T2I, Task
from tests.support.scoring import score_features

ANGLES = np.radians([0, 10, 20, 30])
GALLERY_FEATURES = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * [[1], [5], [1], [9]]  # lengths do not matter
GALLERY = pd.DataFrame({"image_id": [70, 71, 72, 73], "pid": [1, -1, 0, 1], "camid": [1, 2, 2, 2], "sha256": list("abcd")})
QUERY = pd.DataFrame({"pid": [1], "camid": [1], "sha256": "q"})
QUERY_FEATURES = np.array([[3.0, 0.0]])


def figures_of(task: Task, query: pd.DataFrame, gallery: pd.DataFrame) -> dict[str, float]:
    return score_features(QUERY_FEATURES, GALLERY_FEATURES, task_rule(task, query, gallery)).figures()


def rank_lists(task: Task, query: pd.DataFrame, gallery: pd.DataFrame, length: int = 5) -> pd.DataFrame:
    rule = task_rule(task, query, gallery)
    lists = RankLists(rule, gallery["image_id"].to_numpy(), length)
    Scores.of(cosine_blocks(unit(QUERY_FEATURES), unit(GALLERY_FEATURES)[rule.kept]), rule, observers=[lists])
    return lists.table()


def test_text_to_image_has_no_camera_rule() -> None:
    figures = figures_of(T2I, QUERY, GALLERY)
    # ranked: 70 (hit), 72 (distractor), 73 (hit); junk is gone
    assert figures["rank1"] == 100 and figures["mAP"] == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_image_to_image_drops_the_querys_own_camera() -> None:
    figures = figures_of(I2I, QUERY, GALLERY)
    assert figures["rank1"] == 0 and figures["mAP"] == 50


def test_an_unknown_camera_is_nobody_elses() -> None:
    gallery, query = GALLERY.assign(camid=-1), QUERY.assign(camid=-1)
    assert figures_of(I2I, query, gallery)["rank1"] == 100
    assert len(rank_lists(I2I, query, gallery)) == 3


def test_rank_lists_are_what_the_protocol_ranks() -> None:
    by_text = rank_lists(T2I, QUERY, GALLERY, 2)
    assert by_text["image_id"].tolist() == [70, 72] and by_text["match"].tolist() == [True, False]
    by_picture = rank_lists(I2I, QUERY, GALLERY)
    assert by_picture["image_id"].tolist() == [72, 73] and by_picture["rank"].tolist() == [1, 2]
    np.testing.assert_allclose(by_picture["similarity"], np.cos(np.radians([20, 30])), atol=1e-4)


def test_figures_as_they_are_committed() -> None:
    assert rounded({"mAP": 12.3456, "num_queries": 7}) == {"mAP": 12.35, "num_queries": 7}


@pytest.mark.parametrize("task", [T2I, I2I], ids=lambda task: task.name)
def test_similarities_are_counted_by_the_rule(task: Task) -> None:
    generator = np.random.default_rng(0)
    left, right = (unit(generator.standard_normal((count, 6))) for count in (30, 80))
    queries, gallery = (
        pd.DataFrame({"pid": generator.integers(1 - low, 6, count), "camid": generator.integers(0, 3, count), "sha256": shown})
        for count, low, shown in ((30, 0, range(30)), (80, 2, range(25, 105)))
    )
    rule = task_rule(task, queries, gallery)
    counts = SimilarityCounts(rule)
    Scores.of(cosine_blocks(left, right[rule.kept], 7), rule, observers=[counts])
    found = counts.table()
    matches, others = [], []
    for q in range(30):
        for g in range(80):
            same = queries["pid"][q] == gallery["pid"][g]
            ignored = (same and queries["camid"][q] == gallery["camid"][g]) or queries["sha256"][q] == gallery["sha256"][g]
            if gallery["pid"][g] != -1 and not (task.by_camera and ignored):
                (matches if same else others).append(left[q] @ right[g])
    assert len(found) == 60 and found["low"].iloc[0] <= min(matches + others) and found["high"].iloc[-1] > max(matches + others)
    edges = [*found["low"], found["high"].iloc[-1]]
    for name, values in (("matches", matches), ("others", others)):
        assert found[name].sum() == len(values)
        assert abs(found[name] - np.histogram(values, edges)[0]).sum() <= 2  # a cosine on an edge may fall to either side


def test_another_rank_changes_no_other_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-sum sums its own three ranks, in the figure and in its interval."""
    generator = np.random.default_rng(0)
    queries, gallery = (pd.DataFrame({"pid": generator.integers(1, 9, count), "camid": 0}) for count in (40, 90))
    rule = task_rule(T2I, queries, gallery)
    left, right = unit(generator.standard_normal((40, 4))), unit(generator.standard_normal((90, 4)))
    scores = Scores.of(cosine_blocks(left, right), rule, T2I.summed_ranks)
    before, ends = scores.figures(), scores.intervals()
    assert before["rsum"] == before["rank1"] + before["rank5"] + before["rank10"]
    monkeypatch.setattr("hpl.evaluation.scores.RANKS", (1, 5, 10, 20))
    after = scores.figures()
    assert after.pop("rank20") >= after["rank10"]
    assert after == before and scores.intervals() == ends
