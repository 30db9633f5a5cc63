"""Who matches whom in each retrieval task of a data set.

T2I: every test caption is a query, every test picture is in the gallery once, a hit is the same identity; no camera rule.
I2I: queries and gallery as the set marks them; the query's own camera and junk are dropped, distractors stay.
"""

import numpy as np
import pandas as pd

from hpl.files import HplError
from hpl.tasks import JUNK_PID, Task


class Rule:
    """Who matches whom: for each query, its matches and what it ignores among the gallery pictures that are not junk."""

    def __init__(
        self,
        query_pids: np.ndarray,
        gallery_pids: np.ndarray,
        query_camids: np.ndarray | None = None,
        gallery_camids: np.ndarray | None = None,
    ) -> None:
        """Take who is on both sides.

        Args:
            query_pids, gallery_pids: Q and G identities; in the gallery -1 is junk (ignored) and, by the image-to-image rule, 0 a
                distractor (matches nobody); caption sets number people from 0.
            query_camids, gallery_camids: with both, the image-to-image rule: pictures of the query's person **and** camera are
                ignored; equal numbers are one camera, so give unknown cameras different ones on both sides. With neither, the
                text-to-image rule: nothing is ignored but junk.

        Raises:
            HplError: camids are given for one side alone, or are not as many as pids.
        """
        if (query_camids is None) != (gallery_camids is None):
            raise HplError("camids are given for one side alone; expected both (image-to-image) or neither (text-to-image)")
        for what, pids, camids in (("query", query_pids, query_camids), ("gallery", gallery_pids, gallery_camids)):
            if camids is not None and len(camids) != len(pids):
                raise HplError(f"there are {len(camids)} {what} camids for {len(pids)} {what} pids; expected as many")
        self.kept = np.asarray(gallery_pids) != JUNK_PID  # G: the columns that all below is about
        self.query_pids, self.gallery_pids = np.asarray(query_pids), np.asarray(gallery_pids)[self.kept]
        self.query_camids = None if query_camids is None else np.asarray(query_camids)
        self.gallery_camids = None if gallery_camids is None else np.asarray(gallery_camids)[self.kept]
        self._order = np.argsort(self.gallery_pids, kind="stable")
        ordered = self.gallery_pids[self._order]
        self._first, self._last = (np.searchsorted(ordered, self.query_pids, side) for side in ("left", "right"))

    def positions(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of a query's matches, and of what it ignores: its person seen by its camera."""
        same = self._order[self._first[query] : self._last[query]]
        if self.query_camids is None or self.gallery_camids is None:
            return same, same[:0]
        if self.query_pids[query] <= 0:  # a distractor is nobody
            return same[:0], same[:0]
        ignored = self.gallery_camids[same] == self.query_camids[query]
        return same[~ignored], same[ignored]


def task_rule(task: Task, queries: pd.DataFrame, gallery: pd.DataFrame) -> Rule:
    """Make the rule of a task from tables with columns pid and, where the task goes by camera, camid."""
    pids = queries["pid"].to_numpy(), gallery["pid"].to_numpy()
    if not task.by_camera:
        return Rule(*pids)
    camids = queries["camid"].to_numpy()
    asked = np.where(camids < 0, -2, camids)  # an unknown one is that of no gallery picture
    return Rule(*pids, asked, gallery["camid"].to_numpy())
