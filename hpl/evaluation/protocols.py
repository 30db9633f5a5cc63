"""Who matches whom in each retrieval task of a data set.

T2I: every test caption is a query, every test picture is in the gallery once, a hit is the same identity; no camera rule.
I2I: queries and gallery as the set marks them; the query's own camera and junk are dropped, distractors stay. A gallery picture
with the query's own pixels is the query, whoever it is said to show and by whichever camera: it is ignored for it, and counted.
"""

import numpy as np
import pandas as pd

from hpl.files import HplError
from hpl.tasks import JUNK_PID, Task


class _Columns:
    """The gallery's columns by a number that queries have too."""

    def __init__(self, asked: np.ndarray, gallery: np.ndarray) -> None:
        self._order = np.argsort(gallery, kind="stable")
        ordered = gallery[self._order]
        self._first, self._last = (np.searchsorted(ordered, asked, side) for side in ("left", "right"))
        self.total = int((self._last - self._first).sum())  # pairs of a query and a column

    def of(self, query: int) -> np.ndarray:
        """Return the columns with the number of a query."""
        return self._order[self._first[query] : self._last[query]]


class Rule:
    """Who matches whom: for each query, its matches and what it ignores among the gallery pictures that are not junk."""

    def __init__(
        self,
        query_pids: np.ndarray,
        gallery_pids: np.ndarray,
        query_camids: np.ndarray | None = None,
        gallery_camids: np.ndarray | None = None,
        query_pixels: np.ndarray | None = None,
        gallery_pixels: np.ndarray | None = None,
    ) -> None:
        """Take who is on both sides.

        Args:
            query_pids, gallery_pids: Q and G identities; in the gallery -1 is junk (ignored) and, by the image-to-image rule, 0 a
                distractor (matches nobody); caption sets number people from 0.
            query_camids, gallery_camids: with both, the image-to-image rule: pictures of the query's person **and** camera are
                ignored; equal numbers are one camera, so give unknown cameras different ones on both sides. With neither, the
                text-to-image rule: nothing is ignored but junk.
            query_pixels, gallery_pixels: with both, equal numbers are one picture, pixel for pixel: gallery pictures that are the
                query itself are ignored, whatever their person and camera.

        Raises:
            HplError: camids or pixels are given for one side alone, or are not as many as pids.
        """
        self.kept = np.asarray(gallery_pids) != JUNK_PID  # G: the columns that all below is about
        self.query_pids, self.gallery_pids = np.asarray(query_pids), np.asarray(gallery_pids)[self.kept]
        self.query_camids, self.gallery_camids = self._pair("camids", query_camids, gallery_camids)
        self.query_pixels, self.gallery_pixels = self._pair("pixels", query_pixels, gallery_pixels)
        self._same = _Columns(self.query_pids, self.gallery_pids)
        self._copies: _Columns | None = None
        if self.query_pixels is not None and self.gallery_pixels is not None:
            self._copies = _Columns(self.query_pixels, self.gallery_pixels)
        self.num_copies = self._copies.total if self._copies else 0  # pairs of a query and a gallery picture that is it

    def _pair(
        self, what: str, query: np.ndarray | None, gallery: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Check that something is given for both sides or neither, for all of each; leave out what junk has."""
        if query is None and gallery is None:
            return None, None
        if query is None or gallery is None:
            raise HplError(f"{what} are given for one side alone; expected both (image-to-image) or neither (text-to-image)")
        for side, values, count in (("query", query, len(self.query_pids)), ("gallery", gallery, len(self.kept))):
            if len(values) != count:
                raise HplError(f"there are {len(values)} {side} {what} for {count} {side} pids; expected as many")
        return np.asarray(query), np.asarray(gallery)[self.kept]

    def positions(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of a query's matches, and of what it ignores: its person seen by its camera, and itself."""
        same = self._same.of(query)
        copies = self._copies.of(query) if self._copies else same[:0]
        if self.query_camids is None or self.gallery_camids is None:
            ignored = np.zeros(len(same), bool)
        elif self.query_pids[query] <= 0:  # a distractor is nobody
            return same[:0], copies
        else:
            ignored = self.gallery_camids[same] == self.query_camids[query]
        if not len(copies):
            return same[~ignored], same[ignored]
        ignored |= np.isin(same, copies)
        strange = copies[self.gallery_pids[copies] != self.query_pids[query]]
        return same[~ignored], np.concatenate([same[ignored], strange])

    def among(self, columns: np.ndarray) -> "Rule":
        """Return the same rule for some of the gallery's columns."""
        sides = ((self.query_camids, self.gallery_camids), (self.query_pixels, self.gallery_pixels))
        given = [part for query, gallery in sides for part in (query, None if gallery is None else gallery[columns])]
        return Rule(self.query_pids, self.gallery_pids[columns], *given)


def task_rule(task: Task, queries: pd.DataFrame, gallery: pd.DataFrame) -> Rule:
    """Make the rule of a task from tables with columns pid and, where queries are pictures, camid and sha256 (of the pixels)."""
    pids = queries["pid"].to_numpy(), gallery["pid"].to_numpy()
    if task.by_caption:
        return Rule(*pids)
    camids = queries["camid"].to_numpy()
    asked = np.where(camids < 0, -2, camids)  # an unknown one is that of no gallery picture
    pixels, _ = pd.factorize(pd.concat([queries["sha256"], gallery["sha256"]]))
    return Rule(*pids, asked, gallery["camid"].to_numpy(), pixels[: len(queries)], pixels[len(queries) :])
