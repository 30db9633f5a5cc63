"""What is asked of a gallery: a sentence, pictures or both, what it should not be, and which pictures are looked at."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hpl.files import HplError

QueryPicture = int | str | Path | bytes | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question to a gallery.

    Attributes:
        text: a sentence that describes the person; None: pictures alone.
        pictures: of the person: paths, ids of the gallery (int), contents of picture files (bytes), or uint8 H x W x 3 RGB.
            Several are averaged.
        against: what it should not be: sentences; `against_pictures`: likewise, as `pictures`.
        k: results at most.
        threshold: least score of a result, as `Hit.score`; None: no limit.
        false_alarms: least score by the model's calibration at this rate of false alarms; None: no limit.
        weight: of the sentence in its mean with the pictures (docs/evaluation.md, composed queries), 0..1.
        aversion: how much of what it should not be is taken off the query's vectors.
        cameras: only these; empty: all. `other_cameras`: none by which a query picture that lies in the gallery was taken.
        after, before: ISO 8601 times or seconds since 1970, UTC; pictures of unknown time do not pass.
        where: column -> value that it must have, `track` among the columns.
        prior: share of pictures of the person among those searched, for probabilities; None: as calibrated.
    """

    text: str | None = None
    pictures: Sequence[QueryPicture] = ()
    against: Sequence[str] = ()
    against_pictures: Sequence[QueryPicture] = ()
    k: int = 20
    threshold: float | None = None
    false_alarms: float | None = None
    weight: float = 0.5
    aversion: float = 0.5
    cameras: Sequence[str] = ()
    other_cameras: bool = False
    after: str | float | None = None
    before: str | float | None = None
    where: dict[str, str] = field(default_factory=dict)
    prior: float | None = None

    def __post_init__(self) -> None:
        """Raise HplError at a question that cannot be answered."""
        if not self.text and not len(self.pictures):
            raise HplError("nothing is asked; expected a sentence, a picture or both")
        if self.k < 1:
            raise HplError(f"k = {self.k}; expected at least 1")
        if not 0 <= self.weight <= 1:
            raise HplError(f"weight = {self.weight}; expected 0 to 1")
        if self.other_cameras and not len(self.pictures):
            raise HplError("other cameras than which? expected a query picture that lies in the gallery")


def parse_time(value: str | float) -> float:
    """Read an ISO 8601 time, taken for UTC if it names no zone, or seconds since 1970. HplError if it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise HplError(f"time {value!r}; expected ISO 8601, such as 2026-11-25T14:30, or seconds since 1970") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise HplError(f"time {value!r}; expected ISO 8601, or seconds since 1970")
    return seconds


def show_time(seconds: float | None) -> str | None:
    """Write seconds since 1970 as ISO 8601 in UTC."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def condition(query: Query, avoided: set[str]) -> tuple[str, list]:
    """Write a query's filters as SQL over the table of pictures, with its values; "" if it has none.

    Args:
        avoided: cameras that are left out.
    """
    parts: list[str] = []
    values: list = []
    for names, word in ((list(query.cameras), "IN"), (sorted(avoided), "NOT IN")):
        if names:
            marks = ", ".join("?" * len(names))
            parts.append(f"camera {word} ({marks})" if word == "IN" else f"(camera IS NULL OR camera NOT IN ({marks}))")
            values += names
    for limit, sign in ((query.after, ">="), (query.before, "<=")):
        if limit is not None:
            parts.append(f"time {sign} ?")
            values.append(parse_time(limit))
    for name, value in query.where.items():
        if name in ("camera", "track"):
            parts.append(f"{name} = ?")
            values.append(str(value))
        else:
            parts.append("json_extract(columns, ?) = ?")
            values += [f"$.{json.dumps(name)}", str(value)]
    return " AND ".join(parts), values
