"""From the similarities of a task to its figures: the one object between them is a table with a row a query."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from hpl.evaluation.intervals import draw_people, interval
from hpl.evaluation.metrics import score_block
from hpl.evaluation.protocols import Rule
from hpl.files import HplError

RANKS = (1, 5, 10)
# Number of the first query, and its and the next queries' similarities with the kept gallery.
Blocks = Iterable[tuple[int, np.ndarray]]


class Observer(Protocol):
    """Something that sees each block of similarities while it is scored."""

    def add(self, similarity: np.ndarray, start: int) -> None:
        """Take the similarities of the queries from number `start` with the gallery without junk."""


@dataclass(frozen=True)
class Scores:
    """How each query fared, and the figures that follow, in percent.

    Attributes:
        table: a row a query, as `score_block` returns it.
        pids: of the queries; confidence intervals draw people, with all queries of each.
        summed_ranks: of the task (hpl.tasks.Task); R-sum is the sum of their rates.
        num_copies: pairs of a query and a gallery picture with its own pixels, which was ignored for it.
    """

    table: pd.DataFrame
    pids: np.ndarray
    summed_ranks: tuple[int, ...] = ()
    num_copies: int = 0

    @classmethod
    def of(cls, blocks: Blocks, rule: Rule, summed_ranks: tuple[int, ...] = (), observers: Iterable[Observer] = ()) -> "Scores":
        """Score all queries in one pass over their similarities, which each observer sees too."""
        tables, watching = [score_block(np.empty((0, 0)), rule)], list(observers)
        for start, similarity in blocks:
            tables.append(score_block(similarity, rule, start))
            for observer in watching:
                observer.add(similarity, start)
        return cls(pd.concat(tables, ignore_index=True), rule.query_pids, summed_ranks, rule.num_copies)

    def figures(self) -> dict[str, float]:
        """Return rank-k, mAP, mINP, R-sum if the task has it, num_queries and num_skipped. HplError if none has a match.

        Where gallery pictures are the query itself, num_copies_ignored counts the pairs.
        """
        found = self.table[self._matched]
        if found.empty:
            raise HplError(f"none of the {len(self.table)} queries has a match in the gallery")
        counts = {"num_queries": len(found), "num_skipped": len(self.table) - len(found)}
        if self.num_copies:
            counts["num_copies_ignored"] = self.num_copies
        return {
            **{f"rank{rank}": _rate(found, rank) for rank in RANKS},
            "mAP": 100 * float(found["ap"].mean()),
            "mINP": 100 * float(found["inp"].mean()),
            **counts,
        } | ({"rsum": sum(_rate(found, rank) for rank in self.summed_ranks)} if self.summed_ranks else {})

    def intervals(self) -> dict[str, float]:
        """Return the 95 % confidence intervals of rank1, mAP and R-sum, as NAME_ci_low and NAME_ci_high.

        Queries without a match are left out. With one person alone both ends are the figure.
        """
        values = self._values()
        if self.summed_ranks:
            first = self.table["first_rank"][self._matched]
            values["rsum"] = sum((first <= rank).to_numpy(float) for rank in self.summed_ranks)
        return self._bootstrap(values)

    def gain_over(self, other: "Scores") -> dict[str, float]:
        """Return rank1 and mAP less those of `other`, on the same queries, in points of percent, with paired intervals.

        A query has a match in both or in neither.
        """
        own, reference = self._values(), other._values()
        gains = {name: own[name] - reference[name] for name in own}
        return {name: 100 * float(gain.mean()) for name, gain in gains.items()} | self._bootstrap(gains)

    @property
    def _matched(self) -> np.ndarray:
        return (self.table["num_matches"] > 0).to_numpy()

    def _values(self) -> dict[str, np.ndarray]:
        """Return what the two main figures are means of, by query."""
        found = self.table[self._matched]
        return {"rank1": (found["first_rank"] == 1).to_numpy(float), "mAP": found["ap"].to_numpy()}

    def _bootstrap(self, values: dict[str, np.ndarray]) -> dict[str, float]:
        person, drawn = draw_people(np.asarray(self.pids)[self._matched])
        num_queries = drawn @ np.bincount(person)
        ends: dict[str, float] = {}
        for name, value in values.items():
            ends |= interval(name, 100 * (drawn @ np.bincount(person, weights=value)) / num_queries)
        return ends


def _rate(found: pd.DataFrame, rank: int) -> float:
    return 100 * float((found["first_rank"] <= rank).mean())


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Round figures as they are committed: percent with two decimals, counts as integers."""
    return {name: value if isinstance(value, int) else round(value, 2) for name, value in figures.items()}


def retrieval_metrics(similarity: np.ndarray, rule: Rule) -> dict[str, float]:
    """Score a similarity matrix, Q x G with junk, higher is more alike.

    Returns:
        rank1, rank5, rank10, mAP and mINP in percent, num_queries that were scored, and num_skipped without a match.

    Raises:
        HplError: shapes do not fit, a similarity is not a finite number, or no query has a match.
    """
    similarity = np.asarray(similarity)
    if not np.issubdtype(similarity.dtype, np.number):
        raise HplError(f"similarity is of type {similarity.dtype}; expected numbers")
    shape = len(rule.query_pids), len(rule.kept)
    if similarity.shape != shape:
        raise HplError(f"similarity has shape {similarity.shape}; expected {shape[0]} queries x {shape[1]} gallery pictures")
    if not np.isfinite(similarity).all():
        q, g = np.argwhere(~np.isfinite(similarity))[0]
        raise HplError(f"similarity of query {q} and gallery picture {g} is {similarity[q, g]}; expected finite numbers")
    return Scores.of([(0, similarity[:, rule.kept])], rule).figures()
