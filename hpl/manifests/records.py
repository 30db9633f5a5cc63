"""What a reader yields: one record a picture, before any picture is opened."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hpl.files import HplError

JUNK_PID = -1  # a picture that scoring ignores
DISTRACTOR_PID = 0  # a picture in the gallery that matches nobody
NO_CAMERA = -1
ROLE_OF_SPLIT = {"train": "train", "val": "val", "test": "gallery"}  # in a caption set, which has no queries among its pictures
NOT_PICTURES = {"thumbs.db", ".ds_store", "desktop.ini"}  # what file managers leave behind
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRecord:
    """One picture of a data set, or one row of its annotation. `path` is relative to the data set's folder, with forward slashes."""

    path: str
    split: str  # train | val | test; "" if the data set does not say
    role: str  # train | val | query | gallery; "" if the data set does not say which test pictures are queries
    person: str  # who it is: the key within the data set; "" if anonymous
    source_pid: int | None = None  # as the data set numbers it; None: it names people, and their order gives the number
    camid: int = NO_CAMERA
    captions: tuple[str, ...] = ()
    anonymous: bool = False  # True for junk (source_pid -1) and distractors (0): the pid names nobody
    number: int = -1  # of the record or row in the annotation


@dataclass(kw_only=True)
class Reading:
    """A data set as its reader found it."""

    records: Iterable[PictureRecord]  # a path may occur twice; build_manifests joins such records or names the conflict
    tasks: tuple[str, ...] = ()  # t2i | i2i: what the set is made for; empty: i2i, and t2i if it has captions
    place: str = ""  # what comes before a record's number in a message: "reid_raw.json: record"
    version: str = ""  # of the data set, where there are several: "V1"
    notes: list[str] = field(default_factory=list)  # what a user should know of how it was read; complete once records are consumed


def checked_path(root: Path, path: object, place: str) -> str:
    """Normalise a path of an annotation; HplError if it is no path or leaves the data set's folder. The file need not exist."""
    if not isinstance(path, str) or not path.strip():
        raise HplError(f"{place}: path {path!r}; expected the path of a picture relative to {root}")
    normal = posixpath.normpath(path)
    if "\\" in path or "\0" in path or posixpath.isabs(normal) or normal.split("/")[0] == ".." or normal == ".":
        raise HplError(f"{place}: path {path!r} leaves the data set's folder; expected a path inside {root}")
    return normal


def existing_folder(root: Path, what: str) -> Path:
    """HplError, naming what was expected there, unless `root` is a folder."""
    if not root.is_dir():
        raise HplError(f"{root}: folder not found; expected {what}")
    return root


def checked_captions(captions: object, place: str) -> tuple[str, ...]:
    """The sentences of a picture with white space made single; HplError if one is empty or not text."""
    if not isinstance(captions, list) or not captions:
        raise HplError(f"{place}: captions {captions!r}; expected a non-empty list of sentences")
    for caption in captions:
        if not isinstance(caption, str) or not caption.strip() or any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise HplError(f"{place}: empty or broken caption {caption!r}; expected a sentence")
    return tuple(" ".join(caption.split()) for caption in captions)
