"""Open-set figures: what a system finds of known people when it must stay silent about strangers.

A seeded half of the test people leaves the gallery. Their queries should find nobody; the threshold is set on them. Queries of
the people who stay count as detected if the best picture is of the right person and its score is above the threshold.
"""

import numpy as np

from hpl.evaluation.intervals import draw_people, interval
from hpl.evaluation.protocols import Rule

FALSE_ALARMS = 0.01  # share of the strangers' queries that may score above the threshold
STRANGER_SEED = 0


class OpenSet:
    """Gathers, block by block, each query's best match and best other picture in the gallery without the strangers."""

    def __init__(self, rule: Rule) -> None:
        people = np.unique(rule.query_pids)
        self.strangers = np.random.default_rng(STRANGER_SEED).permutation(people)[: len(people) // 2]
        self._columns = np.flatnonzero(~np.isin(rule.gallery_pids, self.strangers))
        self._rule = rule.among(self._columns)
        self._best = np.full((len(rule.query_pids), 2), -np.inf)  # of the matches, of the others

    def add(self, similarity: np.ndarray, start: int) -> None:
        """Take the similarities of some queries with the gallery without junk."""
        left = similarity[:, self._columns]
        for query, row in enumerate(left, start):
            matches, ignored = self._rule.positions(query)
            best_match = row[matches].max(initial=-np.inf)
            row[matches] = row[ignored] = -np.inf
            self._best[query] = best_match, row.max(initial=-np.inf)

    def figures(self) -> dict[str, float]:
        """Return detection_rate (percent) at FALSE_ALARMS, its interval, num_known and num_unknown queries; empty without either.

        The interval draws known people and strangers each by themselves, so that the threshold moves as well.
        """
        pids = self._rule.query_pids
        stranger = np.isin(pids, self.strangers)
        known = ~stranger & (self._best[:, 0] > -np.inf)
        if not known.any() or not stranger.any():
            return {}
        match, other = self._best[known].T
        score = np.where(match > other, match, -np.inf)  # above the threshold means detected
        order = np.argsort(-self._best[stranger, 1], kind="stable")
        alarms, alarm_pids = self._best[stranger, 1][order], pids[stranger][order]

        def rate(known_counts: np.ndarray, alarm_counts: np.ndarray) -> float:
            """Compute the share that is detected, if each query counts so many times."""
            total = np.cumsum(alarm_counts)
            allowed = int(FALSE_ALARMS * total[-1])
            threshold = alarms[np.searchsorted(total, allowed, side="right")]  # so many score above it, at most
            return 100 * float(np.average(score > threshold, weights=known_counts))

        person, drawn = draw_people(pids[known])
        alarm_person, alarm_drawn = draw_people(alarm_pids, seed=STRANGER_SEED + 1)
        rates = [
            rate(counts[person], alarm_counts[alarm_person]) for counts, alarm_counts in zip(drawn, alarm_drawn, strict=True)
        ]
        return {
            "detection_rate": rate(np.ones(len(match)), np.ones(len(alarms), int)),
            **interval("detection_rate", np.array(rates)),
            "num_known": len(match),
            "num_unknown": len(alarms),
        }
