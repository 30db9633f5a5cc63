"""Detection and identification with strangers: by eye, and against a naive loop."""

import numpy as np
import pytest

from hpl.analysis.open_set import FALSE_ALARMS, OpenSet
from hpl.evaluation.intervals import draw_people
from hpl.evaluation.protocols import Rule


def figures(similarity: np.ndarray, rule: Rule, block: int = 7) -> tuple[dict, np.ndarray]:
    open_set = OpenSet(rule)
    for start in range(0, len(similarity), block):
        open_set.add(similarity[start : start + block], start)
    return open_set.figures(), open_set.strangers


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("by_camera", [True, False])
def test_against_a_naive_loop(by_camera: bool, copies: bool) -> None:
    generator = np.random.default_rng(by_camera)
    query_pids, gallery_pids = generator.integers(1, 13, 300), generator.integers(0, 13, 60)
    camids = generator.integers(0, 3, 300), generator.integers(0, 3, 60)
    similarity = generator.integers(0, 4000, (300, 60)) / 4000 + 0.4 * (query_pids[:, None] == gallery_pids)
    before = similarity.copy()
    pixels = generator.integers(0, 40, 300), generator.integers(0, 40, 60)
    itself = (pixels[0][:, None] == pixels[1]) & copies
    similarity[itself] = before[itself] = 2  # nothing is as similar to it
    asked = camids if by_camera else (None, None)
    got, strangers = figures(similarity, Rule(query_pids, gallery_pids, *asked, *(pixels if copies else (None, None))))
    assert len(strangers) == 6 and (similarity == before).all()
    alarms, known = [], []
    for q, pid in enumerate(query_pids):
        left = [g for g in range(60) if gallery_pids[g] not in strangers and not itself[q, g]]
        if pid in strangers:
            alarms.append(max(similarity[q, g] for g in left))
            continue
        if by_camera:
            left = [g for g in left if gallery_pids[g] != pid or camids[1][g] != camids[0][q]]
        matches = [similarity[q, g] for g in left if gallery_pids[g] == pid]
        if matches:
            known.append((max(matches), max(similarity[q, g] for g in left if gallery_pids[g] != pid)))
    threshold = min(t for t in alarms if sum(alarm > t for alarm in alarms) <= FALSE_ALARMS * len(alarms))
    detected = np.mean([match > other and match > threshold for match, other in known])
    assert got["detection_rate"] == pytest.approx(100 * detected)
    assert (got["num_known"], got["num_unknown"]) == (len(known), len(alarms))
    assert 0 < got["detection_rate_ci_low"] < got["detection_rate"] < got["detection_rate_ci_high"] < 100


def test_the_interval_against_a_loop_that_draws_people_one_by_one() -> None:
    generator = np.random.default_rng(5)
    pids = np.repeat(np.arange(1, 11), 6)
    similarity = generator.random((60, 60)) + 0.2 * (pids[:, None] == pids)
    got, strangers = figures(similarity, Rule(pids, pids))
    left = ~np.isin(pids, strangers)
    queries = {pid: np.flatnonzero(pids == pid) for pid in pids}
    people = [[pid for pid in queries if (pid in strangers) == strange] for strange in (False, True)]
    drawn = [draw_people(np.repeat(who, 6), seed)[1] for who, seed in zip(people, (0, 1))]
    rates = []
    for counts in zip(*drawn):
        known, strange = (
            [q for pid, count in zip(who, each) for q in [*queries[pid]] * count] for who, each in zip(people, counts)
        )
        alarms = [similarity[q, left].max() for q in strange]
        threshold = min(t for t in alarms if sum(alarm > t for alarm in alarms) <= FALSE_ALARMS * len(alarms))
        best = [(similarity[q, left & (pids == pids[q])].max(), similarity[q, left & (pids != pids[q])].max()) for q in known]
        rates.append(100 * np.mean([match > other and match > threshold for match, other in best]))
    assert got["detection_rate_ci_low"] == pytest.approx(np.percentile(rates, 2.5))
    assert got["detection_rate_ci_high"] == pytest.approx(np.percentile(rates, 97.5))


def test_perfect_features_detect_all_and_constant_ones_nobody() -> None:
    pids = np.repeat(np.arange(1, 9), 5)
    rule = Rule(pids, pids)
    assert figures((pids[:, None] == pids).astype(float), rule)[0]["detection_rate"] == 100
    assert figures(np.ones((40, 40)), rule)[0]["detection_rate"] == 0


def test_one_person_alone_has_no_open_set() -> None:
    assert figures(np.ones((2, 3)), Rule(np.array([1, 1]), np.array([1, 1, 0])))[0] == {}
