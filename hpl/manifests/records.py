"""What a reader yields: one record a picture, before any picture is opened."""

import posixpath
from dataclasses import dataclass
from pathlib import Path

from hpl.files import HplError

JUNK_PID = -1  # a picture that scoring ignores
DISTRACTOR_PID = 0  # a picture in the gallery that matches nobody
NO_CAMERA = -1


@dataclass(frozen=True, kw_only=True)
class PictureRecord:
    """One picture of a data set. `path` is relative to the data set's folder, with forward slashes."""

    path: str
    split: str  # train | val | test
    role: str  # train | val | query | gallery
    source_pid: int  # as the data set numbers it; JUNK_PID and DISTRACTOR_PID keep their meaning
    camid: int = NO_CAMERA
    captions: tuple[str, ...] = ()
    anonymous: bool = False  # True for junk and distractors: the pid names nobody


def checked_path(root: Path, path: str, place: str) -> str:
    """Normalise a path of an annotation; HplError if it leaves the data set's folder or names no file."""
    if not isinstance(path, str) or not path.strip():
        raise HplError(f"{place}: path {path!r}; expected the path of a picture relative to {root}")
    normal = posixpath.normpath(path)
    if "\\" in path or "\0" in path or posixpath.isabs(normal) or normal.split("/")[0] == "..":
        raise HplError(f"{place}: path {path!r} leaves the data set's folder; expected a path inside {root}")
    if not (root / normal).is_file():
        raise HplError(f"{place}: picture {root / normal} not found")
    return normal


def existing_folder(root: Path, what: str) -> Path:
    """HplError, naming what was expected there, unless `root` is a folder."""
    if not root.is_dir():
        raise HplError(f"{root}: folder not found; expected {what}")
    return root
