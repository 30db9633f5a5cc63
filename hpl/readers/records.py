"""What a reader yields: one record a picture, before any picture is opened."""

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpl.files import HplError
from hpl.tasks import NO_CAMERA

ROLE_OF_SPLIT = {"train": "train", "val": "val", "test": "gallery"}  # in a caption set, which has no queries among its pictures
_NOT_PICTURES = {"thumbs.db", ".ds_store", "desktop.ini"}  # what file managers leave behind
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"} | {
    ".heic", ".heif", ".avif", ".jxl", ".jp2"  # which are not read, but must not be passed over either
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRecord:
    """One picture of a data set, or one row of its annotation."""

    path: str  # relative to the data set's folder, with forward slashes
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
    tasks: tuple[str, ...] = ()  # names of TASKS it is made for; empty: i2i, and t2i if it has captions
    place: str = ""  # what comes before a record's number in a message: "reid_raw.json: record"
    version: str = ""  # of the data set, where there are several: "V1"
    notes: list[str] = field(default_factory=list)  # what a user should know of the reading; complete once records are consumed
    listed: bool = True  # False: the reader found the pictures on disk, so their names are spelled as there
    own_data: bool = False  # True for a user's own: no official counts, splits that may be missing, perhaps one task alone


def checked_path(root: Path, path: object, place: str) -> str:
    """Normalise a path of an annotation; HplError if it is no path or leaves the data set's folder. The file need not exist."""
    if not isinstance(path, str) or not path.strip() or _is_broken(path):
        raise HplError(f"{place}: path {path!r}; expected the path of a picture relative to {root}")
    normal = posixpath.normpath(path)
    if "\\" in path:
        raise HplError(f"{place}: path {path!r} has a backslash; expected forward slashes, as in crops/0001.jpg")
    if "\0" in path or posixpath.isabs(normal) or normal.split("/")[0] == ".." or normal == ".":
        raise HplError(f"{place}: path {path!r} leaves the data set's folder; expected a path inside {root}")
    return normal


def existing_folder(root: Path, what: str) -> Path:
    """Return `root` if it is a folder; else HplError, naming what was expected there."""
    if not root.is_dir():
        raise HplError(f"{root}: folder not found; expected {what}")
    return root


def find_root(root: Path, markers: Sequence[str], what: str) -> tuple[Path, str, list[str]]:
    """Find the folder that holds a data set: `root`, or the one folder below it, two deep at most, where mirrors nest the set.

    Args:
        markers: files and folders, any one of which shows that the data set is here.
        what: what is expected, for the message.

    Returns:
        That folder; what record paths begin with, "" or "MSMT17_V1/"; and what a user should know of it.
    """
    existing_folder(root, what)
    if any((root / marker).exists() for marker in markers):
        return root, "", []
    inside, depth = _folders_with(markers, root, _folders_in(root)), "one folder"
    if not inside:
        level = [folder for parent in _folders_in(root) for folder in _folders_in(parent)]
        inside, depth = _folders_with(markers, root, level), "two folders"
    if not inside:
        entries = sorted(entry.name for entry in root.iterdir() if not is_hidden(entry.name))
        held = ", ".join(entries[:5]) + (", ..." if len(entries) > 5 else "") if entries else "nothing"
        raise HplError(f"{root}: none of {', '.join(markers)} is there; expected {what}; it holds {held}")
    if len(inside) > 1:
        raise HplError(f"{root}: several folders hold a data set: {', '.join(inside)}; expected one: point `folder` at it")
    return root / inside[0], f"{inside[0]}/", [f"the set was found {depth} deeper, in {inside[0]}/"]


def _folders_in(parent: Path) -> list[Path]:
    return [folder for folder in sorted(parent.iterdir()) if folder.is_dir() and not is_hidden(folder.name)]


def _folders_with(markers: Sequence[str], root: Path, folders: list[Path]) -> list[str]:
    return [folder.relative_to(root).as_posix() for folder in folders if any((folder / name).exists() for name in markers)]


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is one that users do not see, or that file managers and archivers leave behind."""
    return name.startswith(".") or is_litter(name)


def is_litter(name: str) -> bool:
    """Tell whether a file or folder is one that file managers and archivers leave behind."""
    return name.startswith("._") or name == "__MACOSX" or name.lower() in _NOT_PICTURES


def read_utf8(file: Path) -> str:
    """Read a text file, no byte order mark, lines ending in line feeds; HplError names the file and a byte that is not UTF-8."""
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        raise HplError(f"{file}: file not found") from None
    except UnicodeDecodeError as error:
        raise HplError(f"{file}: not UTF-8 text (byte {error.start}); expected plain text") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def whole_number(text: str) -> int | None:
    """Parse a number from 0 to 2**31 - 1 in the digits 0-9; None for any other text."""
    number = int(text) if re.fullmatch("[0-9]{1,18}", text) else 2**31
    return number if number < 2**31 else None


def checked_captions(captions: object, place: str) -> tuple[str, ...]:
    """Clean the sentences of a picture; HplError if one is empty or not text.

    White space is made single; control and zero-width characters (Unicode Cc, Cf) are removed; all else stays as it was written.
    """
    if not isinstance(captions, list) or not captions:
        raise HplError(f"{place}: captions {captions!r}; expected a non-empty list of sentences")
    sentences = tuple(_visible(caption) if isinstance(caption, str) else "" for caption in captions)
    for caption, sentence in zip(captions, sentences):
        if not sentence or _is_broken(sentence):
            raise HplError(f"{place}: empty or broken caption {caption!r}; expected a sentence")
    return sentences


def _visible(text: str) -> str:
    if not text.isprintable():
        text = "".join(letter for letter in text if letter.isspace() or unicodedata.category(letter) not in ("Cc", "Cf"))
    return " ".join(text.split())


def _is_broken(text: str) -> bool:
    """Tell whether it holds half a surrogate pair, which no file can be written with."""
    return not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text)
