"""Whether a calibration holds on people that it was not fitted on: reliability, false alarms reached, and clusters.

Pairs of one person and of two are weighted to the calibration's stated prior, whatever a test gallery's own share of matches is.
Intervals draw the people who ask (hpl.evaluation.intervals).
"""

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, completeness_score, homogeneity_score

from hpl.analysis.calibrate import people_of
from hpl.evaluation.calibration import Calibration
from hpl.evaluation.intervals import draw_people, interval
from hpl.retrieval.figures import Encoded
from hpl.search.cluster import cluster_vectors
from hpl.tasks import I2I, TASKS, Task

NUM_BINS = 10  # of probability, equally wide
_DIGITS = 6


def evaluate_calibration(encoded: list[Encoded], calibration: Calibration | None) -> tuple[dict[str, dict], pd.DataFrame]:
    """Hold a calibration to the first test set of each task.

    Returns:
        `calibration` and `clusters` of metrics.json, the first with what is `missing` and why; and a row for each task and bin of
        probability: task, low, high, expected and observed (share of one person, at the prior; NaN: no pair), observed_ci_low,
        observed_ci_high, num_same, num_others.
    """
    figures, tables = {}, []
    for task in TASKS.values():
        first = next((each for each in encoded if task in each.dataset.tasks), None)
        if calibration is None or first is None or calibration.missing(task):
            continue
        pairs = _CalibratedPairs(first, task, calibration)
        figures[task.name] = pairs.figures()
        tables.append(pairs.reliability())
    first = next((each for each in encoded if I2I in each.dataset.tasks), None)
    if calibration is not None and calibration.content["missing"]:
        figures["missing"] = calibration.content["missing"]
    clusters = {}
    if calibration is not None and calibration.cluster_threshold is not None and first is not None:
        clusters = _cluster_figures(first, calibration.cluster_threshold)
    columns = ["task", "low", "high", "expected", "observed", "observed_ci_low", "observed_ci_high", "num_same", "num_others"]
    found = {"calibration": figures, "clusters": clusters}
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return {name: values for name, values in found.items() if values}, table


class _CalibratedPairs:
    """Counts of a task's pairs by who asks, without what the rule ignores: in bins of probability, above thresholds."""

    def __init__(self, encoded: Encoded, task: Task, calibration: Calibration) -> None:
        blocks, self._rule = encoded.similarities(task)
        self._task, self._calibration = task, calibration
        self._thresholds = calibration.thresholds(task)
        self._person, self._drawn = draw_people(self._rule.query_pids)
        people = self._drawn.shape[1]
        self._counts = np.zeros((people, 2, NUM_BINS))  # others, same person
        self._sums = np.zeros((people, 2, NUM_BINS))  # of probabilities
        self._losses = np.zeros((people, 2))
        self._above = np.zeros((people, 2, len(self._thresholds)))
        for start, similarity in blocks:
            asked = encoded.text[start : start + len(similarity)] if task.by_caption else similarity
            for query, scores in enumerate(calibration.scores(task, similarity, asked), start):
                matches, ignored = self._rule.positions(query)
                other = np.ones(len(scores), bool)
                other[matches] = other[ignored] = False
                self._add(self._person[query], 0, scores[other])
                self._add(self._person[query], 1, scores[matches])

    def _add(self, person: int, kind: int, scores: np.ndarray) -> None:
        probability = self._calibration.probability(self._task, scores)
        bins = np.minimum((probability * NUM_BINS).astype(int), NUM_BINS - 1)
        self._counts[person, kind] += np.bincount(bins, minlength=NUM_BINS)
        self._sums[person, kind] += np.bincount(bins, weights=probability, minlength=NUM_BINS)
        self._losses[person, kind] -= np.log(probability if kind else 1 - probability).sum()
        self._above[person, kind] += [np.count_nonzero(scores >= least) for least in self._thresholds.values()]

    def figures(self) -> dict:
        """Return ece and its interval, that of the bins from 0.1 up (ece_shown), log_loss, prior, counts, false alarms."""
        found: dict[str, float] = {}
        for name, first in (("ece", 0), ("ece_shown", 1)):
            found[name] = float(self._errors(np.ones((1, len(self._counts))), first)[0])
            found |= interval(name, self._errors(self._drawn, first))
        others, same = self._counts.sum(axis=(0, 2))
        prior = self._calibration.prior
        other_loss, same_loss = self._losses.sum(axis=0)
        found["log_loss"] = float(prior * same_loss / same + (1 - prior) * other_loss / others)
        found = {name: round(value, _DIGITS) for name, value in found.items()}
        counts = {"prior": prior, "num_same": int(same), "num_others": int(others)}
        alarms: dict[str, dict] = {"false_alarms": self._false_alarms()}
        if unsupported := self._calibration.unsupported(self._task):
            alarms["not_promised"] = {_one_in(rate): reason for rate, reason in unsupported.items()}
        return found | counts | alarms

    def reliability(self) -> pd.DataFrame:
        """Return the table of `evaluate_calibration`, of this task."""
        edges = np.arange(NUM_BINS + 1) / NUM_BINS
        expected, observed, _ = self._shares(np.ones((1, len(self._counts))))
        samples = self._shares(self._drawn)[1]
        samples[:, np.isnan(observed[0])] = 0  # no pair in any sample
        low, high = np.where(np.isnan(observed[0]), np.nan, np.nanpercentile(samples, [2.5, 97.5], axis=0))
        others, same = self._counts.sum(axis=0).astype(np.int64)
        ends = {"observed_ci_low": low, "observed_ci_high": high, "num_same": same, "num_others": others}
        shares = {"expected": expected[0], "observed": observed[0]}
        return pd.DataFrame({"task": self._task.name, "low": edges[:-1], "high": edges[1:], **shares, **ends})

    def _shares(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute expected and observed share of one person in each bin, and the bin's share of all pairs, at the prior.

        Args:
            times: S x people, how often each counts.

        Returns:
            Three arrays, S x bins; the first two NaN where a bin has no pair.
        """
        counts, sums = (np.tensordot(times, values, 1) for values in (self._counts, self._sums))  # S x 2 x bins
        prior = self._calibration.prior
        weights = np.array([[1 - prior], [prior]]) / np.maximum(counts.sum(axis=2, keepdims=True), 1)
        mass = (counts * weights).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (sums * weights).sum(axis=1) / mass, (counts * weights)[:, 1] / mass, mass

    def _errors(self, times: np.ndarray, first: int) -> np.ndarray:
        """Compute the mean absolute difference of expected and observed share, weighted by pairs, over bins from `first` on."""
        expected, observed, mass = (values[:, first:] for values in self._shares(times))
        differences = np.nan_to_num(np.abs(expected - observed))
        return (differences * mass).sum(axis=1) / np.maximum(mass.sum(axis=1), 1e-12)

    def _false_alarms(self) -> dict[str, dict]:
        """Return for each rate, as one_in_N, the threshold, the rate reached and its interval, and the share of matches found."""
        totals, found = self._counts.sum(axis=2), {}
        for number, (rate, threshold) in enumerate(self._thresholds.items()):
            above = self._above[:, :, number]
            samples = (self._drawn @ above[:, 0]) / np.maximum(self._drawn @ totals[:, 0], 1)
            reached, hits = above.sum(axis=0) / totals.sum(axis=0)
            ends = {name: round(value, 8) for name, value in interval("reached", samples).items()}
            figures = {"promised": rate, "reached": round(float(reached), 8), **ends, "num_alarms": int(above[:, 0].sum())}
            found[_one_in(rate)] = {**figures, "threshold": threshold, "found": round(100 * float(hits), 2)}
        return found


def _one_in(rate: float) -> str:
    return f"one_in_{1 / rate:.0f}"


def _cluster_figures(encoded: Encoded, threshold: float) -> dict:
    """Cluster a set's pictures of known people as if nobody knew them, and compare with who they are."""
    vectors, pids = people_of(encoded)
    labels = cluster_vectors(vectors, threshold)
    scores = {"ari": adjusted_rand_score, "homogeneity": homogeneity_score, "completeness": completeness_score}
    sizes = np.bincount(labels)
    return {
        "threshold": threshold,
        **{name: round(float(score(pids, labels)), 4) for name, score in scores.items()},
        "num_found": len(sizes),
        "num_true": len(np.unique(pids)),
        "num_alone": int((sizes == 1).sum()),
        "num_pictures": len(pids),
    }
