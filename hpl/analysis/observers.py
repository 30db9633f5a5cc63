"""What sees a task's similarities while they are scored, for the report: rank lists, and how similar matches and others are."""

import numpy as np
import pandas as pd

from hpl.evaluation.metrics import rank_order
from hpl.evaluation.protocols import Rule

NUM_SIMILARITY_BINS = 60  # over the range of similarities
_FINE = 20_000  # bins for each 1.0 of similarity, of which those are made


class RankLists:
    """The best pictures of each query."""

    def __init__(self, rule: Rule, image_ids: np.ndarray, length: int) -> None:
        """`image_ids` are of the gallery, with junk; `length` is that of a list."""
        self._rule, self._image_ids, self._length = rule, np.asarray(image_ids)[rule.kept], length
        self._found: list[pd.DataFrame] = []

    def add(self, similarity: np.ndarray, start: int) -> None:
        """Take the similarities of some queries with the gallery without junk."""
        order = rank_order(similarity, self._rule, self._length, start)
        rows, ranks = np.nonzero(order >= 0)
        found = order[rows, ranks]
        lists = {
            "query": start + rows,
            "rank": ranks + 1,
            "image_id": self._image_ids[found],
            "similarity": similarity[rows, found].round(4),
            "match": self._rule.gallery_pids[found] == self._rule.query_pids[start + rows],
        }
        self._found.append(pd.DataFrame(lists))

    def table(self) -> pd.DataFrame:
        """Return the number of the query, rank from 1, image_id, similarity (4 places) and whether it is a match."""
        return pd.concat(self._found, ignore_index=True)


class SimilarityCounts:
    """How many matches and others have which similarity; what the rule ignores is in neither."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._counts = rule, np.zeros((2, 2 * _FINE + 1), np.int64)  # matches and others, from -1 to 1

    def add(self, similarity: np.ndarray, start: int) -> None:
        """Take the similarities of some queries with the gallery without junk."""
        positions = [self._rule.positions(start + number) for number in range(len(similarity))]
        matches, ignored = (
            _bins(np.concatenate([row[columns[kind]] for row, columns in zip(similarity, positions)])) for kind in (0, 1)
        )
        self._counts += np.stack([matches, sum(_bins(row) for row in similarity) - matches - ignored])

    def table(self) -> pd.DataFrame:
        """Return low and high (edges of a bin), matches and others (counts): the bins in use joined to NUM_SIMILARITY_BINS."""
        used = np.flatnonzero(self._counts.any(axis=0))
        width = -(-(used[-1] + 1 - used[0]) // NUM_SIMILARITY_BINS)
        length = NUM_SIMILARITY_BINS * width
        padded = np.pad(self._counts[:, used[0] :], ((0, 0), (0, length)))[:, :length]
        edges = ((used[0] + width * np.arange(NUM_SIMILARITY_BINS + 1)) / _FINE - 1).round(6)
        matches, others = padded.reshape(2, NUM_SIMILARITY_BINS, width).sum(axis=2)
        return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "matches": matches, "others": others})


def _bins(values: np.ndarray) -> np.ndarray:
    num_bins = 2 * _FINE + 1
    places = np.clip((values + 1) * _FINE, 0, num_bins - 1).astype(np.int32)
    return np.bincount(places.ravel(), minlength=num_bins)
