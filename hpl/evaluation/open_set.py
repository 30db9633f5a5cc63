"""Open-set figures: what a system finds of known people when it must stay silent about strangers.

A seeded half of the test people leaves the gallery. Their queries should find nobody; the threshold is set on them. Queries of the people
who stay count as detected if the best picture is of the right person and its score is above the threshold.
"""

import numpy as np

from hpl.evaluation.metrics import Rule

FALSE_ALARMS = 0.01  # share of the strangers' queries that may score above the threshold
SEED = 0


class OpenSet:
    """Gathers, block by block, each query's best match and best other picture in the gallery without the strangers."""

    def __init__(self, rule: Rule) -> None:
        people = np.unique(rule.query_pids)
        self.strangers = np.random.default_rng(SEED).permutation(people)[: len(people) // 2]
        self._columns = np.flatnonzero(~np.isin(rule.gallery_pids, self.strangers))
        camids = None if rule.gallery_camids is None else rule.gallery_camids[self._columns]
        self._rule = Rule(rule.query_pids, rule.gallery_pids[self._columns], rule.query_camids, camids)
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
        """detection_rate in percent at FALSE_ALARMS; num_known and num_unknown queries. Empty if there are none of either."""
        stranger = np.isin(self._rule.query_pids, self.strangers)
        match, other = self._best[~stranger & (self._best[:, 0] > -np.inf)].T
        alarms = np.sort(self._best[stranger, 1])[::-1]
        if not len(match) or not len(alarms):
            return {}
        threshold = alarms[int(FALSE_ALARMS * len(alarms))]  # so many score above it, at most
        detected = (match > other) & (match > threshold)
        return {"detection_rate": 100 * float(detected.mean()), "num_known": len(match), "num_unknown": len(alarms)}
