"""Names of files as an annotation spells them, and as the disk has them.

A Mac writes an accent as a code point of its own, most other programs write letter and accent as one (Unicode NFD and NFC), and a
JPEG file ends in .jpg, .jpeg or .JPG. `ls` shows the same, or nearly, and a file system finds nothing.
"""

import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from hpl.files import HplError

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}


def composed(name: str) -> str:
    """Write a name in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name)


def check_one_spelling(folder: Path, names: Iterable[str]) -> None:
    """Raise HplError if two files of a folder have one name but for how its accents are written."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(composed(name), name)) != name:
            raise HplError(_ambiguous(folder, [other, name]))


def _ambiguous(folder: Path | str, names: list[str]) -> str:
    both = " and ".join(ascii(name) for name in sorted(names))
    return f"{folder}: {both} are one name, its accents written in two ways; expected one of them: move the other away"


class Spelling:
    """Names of what is below a folder; each folder on the way is listed once, when a name in it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._folders: dict[str, tuple[dict, dict]] = {}  # folder -> names by NFC, and by NFC and kind of file

    def find(self, path: str, taken: Iterable[str] = ()) -> str | None:
        """Find the one file or folder that `path` can mean, both relative to the root.

        That of the same NFC name; else, if there is but one, of the same name but for how a suffix is written (.JPG, .jpeg for
        .jpg), unless it is in `taken`. None if there is none. HplError if two files have its NFC name.
        """
        *parents, name = path.split("/")
        folders = [""]
        for part in parents:
            folders = [
                posixpath.join(folder, inner) for folder in folders for inner in self._names(folder)[0].get(composed(part), ())
            ]
        same, alike = (
            [
                posixpath.join(folder, found)
                for folder in folders
                for found in self._names(folder)[kind].get(key, ())
                if (self.root / folder / found).exists()
            ]
            for kind, key in enumerate((composed(name), _without_spelling_of_suffix(name)))
        )
        if len(same) > 1:
            raise HplError(_ambiguous(self.root, same))
        alike = [found for found in alike if found not in taken]
        return same[0] if same else alike[0] if len(alike) == 1 else None

    def _names(self, folder: str) -> tuple[dict, dict]:
        if folder not in self._folders:
            index: tuple[dict, dict] = ({}, {})
            place = self.root / folder
            for name in sorted(os.listdir(place)) if place.is_dir() else ():
                for names, key in zip(index, (composed(name), _without_spelling_of_suffix(name)), strict=True):
                    names.setdefault(key, []).append(name)
            self._folders[folder] = index
        return self._folders[folder]


def _without_spelling_of_suffix(name: str) -> str:
    stem, suffix = posixpath.splitext(composed(name))
    return stem + (".jpg" if suffix.lower() in _JPEG else suffix.lower())


def respelled(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Map those of some listed paths that are no files to the files that they mean; one that means none is not in it."""
    listed = dict.fromkeys(paths)
    spelling = Spelling(root)
    found = {path: spelling.find(path, listed) for path in listed if not os.path.isfile(f"{root}/{path}")}
    return {path: file for path, file in found.items() if file is not None}


def what_is_there(file: str) -> str:
    """Say of a missing file what its folder holds in its place: the same name in other capitals, or with another suffix."""
    path = Path(file)
    while not path.parent.is_dir():
        path = path.parent
    stem = composed(path.stem).casefold()
    names = sorted(name for name in os.listdir(path.parent) if composed(posixpath.splitext(name)[0]).casefold() == stem)
    return f"; there is {' and '.join(names[:2])} in {path.parent}: rename it, or what names it" if names else ""
