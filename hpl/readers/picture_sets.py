"""Market-1501, DukeMTMC-reID and MSMT17: the person and the camera stand in file names or lists."""

import os
import re
from pathlib import Path

from hpl.files import HplError
from hpl.readers.records import (
    PictureRecord,
    Reading,
    checked_path,
    existing_folder,
    find_root,
    is_hidden,
    read_utf8,
    whole_number,
)
from hpl.tasks import DISTRACTOR_PID, I2I

_MARKET_FOLDERS = {"bounding_box_train": ("train", "train"), "query": ("test", "query"), "bounding_box_test": ("test", "gallery")}
_SUFFIX = r"(?i:\.jpg\.jpg|\.jpe?g|\.png)"
_MARKET_NAME = re.compile(r"(?P<pid>-1|\d{1,9})_c(?P<camid>\d{1,9})s\d+_\d+_\d+" + _SUFFIX, re.ASCII)
_DUKE_NAME = re.compile(r"(?P<pid>-1|\d{1,9})_c(?P<camid>\d{1,9})_f\d+" + _SUFFIX, re.ASCII)
_MSMT17_FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
_MSMT17_LISTS = {  # which of a version's two folders its paths are relative to; split, role
    "list_train.txt": (0, "train", "train"),
    "list_val.txt": (0, "train", "train"),  # pictures of training people, which every published number trains on
    "list_query.txt": (1, "test", "query"),
    "list_gallery.txt": (1, "test", "gallery"),
}


def read_market1501(root: Path) -> Reading:
    """Read Market-1501 (Zheng et al., ICCV 2015): junk keeps pid -1, distractors pid 0. HplError names a wrong file name."""
    return _read_folders(root, "Market-1501", _MARKET_NAME, "0002_c1s1_000451_03.jpg (pid, camera and sequence, frame, box)")


def read_dukemtmc_reid(root: Path) -> Reading:
    """Read DukeMTMC-reID (Zheng et al., ICCV 2017): Market-1501's layout, officially without junk and distractors."""
    return _read_folders(root, "DukeMTMC-reID", _DUKE_NAME, "0001_c2_f0046182.jpg (pid, camera, frame)")


def _read_folders(root: Path, name: str, pattern: re.Pattern, form: str) -> Reading:
    home, prefix, notes = find_root(root, tuple(_MARKET_FOLDERS), f"the {name} folder with {', '.join(_MARKET_FOLDERS)}")
    example = form.split()[0]
    records, wrong, ignored = list[PictureRecord](), [], []
    for folder, (split, role) in _MARKET_FOLDERS.items():
        existing_folder(home / folder, f"the {role} pictures of {name}, {example} and so on")
        read_before = len(records)
        for entry in sorted(os.scandir(home / folder), key=lambda entry: entry.name):
            if is_hidden(entry.name):
                ignored += [entry.name] if entry.name.lower() != "thumbs.db" else []  # the official sets hold it
                continue
            match = pattern.fullmatch(entry.name)
            if not match or entry.is_dir():
                wrong.append(Path(entry.path))
                continue
            pid = int(match["pid"])
            anonymous = pid <= DISTRACTOR_PID
            if anonymous and role != "gallery":
                raise HplError(
                    f"{Path(entry.path)}: pid {pid} is junk or a distractor; expected such pictures in bounding_box_test alone"
                )
            records.append(
                PictureRecord(
                    path=f"{prefix}{folder}/{entry.name}",
                    split=split,
                    role=role,
                    person="" if anonymous else f"{pid:04d}",
                    source_pid=pid,
                    camid=int(match["camid"]),
                    anonymous=anonymous,
                )
            )
        if len(records) == read_before and not wrong:
            raise HplError(f"{home / folder}: no picture; expected {example} and so on")
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise HplError(f"{wrong[0]}: the file name does not parse{more}; expected the form {form}")
    if ignored:
        notes.append(f"{len(ignored)} files that are no pictures were ignored, such as {ignored[0]}")
    in_train, in_test = ({record.person for record in records if record.split == split} for split in ("train", "test"))
    if both := sorted(in_train & in_test - {""}):
        notes.append(f"{len(both)} people are in training and test, such as {both[0]}; the official {name} shares none")
    return Reading(records=records, tasks=(I2I.name,), notes=notes, listed=False)


def read_msmt17(root: Path) -> Reading:
    """Read MSMT17 (Wei et al., CVPR 2018). V2 has its faces blurred, which costs about five points of mAP: see `version`.

    Training and test people are both numbered from 0, so the split stands before the number in `person`. HplError names the list
    and the line of the first fault.
    """
    folders = [folder for pair in _MSMT17_FOLDERS.values() for folder in pair]
    what = "the MSMT17 folder with train/ and test/ (V1) or mask_train_v2/ and mask_test_v2/ (V2), and list_train.txt and so on"
    lists = (*_MSMT17_LISTS, *(name.removesuffix(".txt") for name in _MSMT17_LISTS))
    home, prefix, notes = find_root(root, (*folders, *lists), what)
    versions = [name for name, pair in _MSMT17_FOLDERS.items() if any((home / folder).is_dir() for folder in pair)]
    if len(versions) > 1:
        raise HplError(
            f"{home}: both V1 (train, test) and V2 (mask_train_v2, mask_test_v2) are there; expected one: move the other away"
        )
    if not versions:
        raise HplError(f"{home}: no pictures; expected {what}")
    version = versions[0]
    records = []
    for name, (side, split, role) in _MSMT17_LISTS.items():
        folder = _MSMT17_FOLDERS[version][side]
        existing_folder(home / folder, f"the {split} pictures of MSMT17 {version}")
        file = _find_list(home, name)
        if name == "list_val.txt" and file is None:
            notes.append("list_val.txt is missing: officially 2,373 of the training pictures")
            continue
        if file is None:
            there = sorted(entry.name for entry in home.iterdir() if entry.is_file() and not is_hidden(entry.name))
            found = f"there are {', '.join(there[:5])}: rename one" if there else "there is no other file"
            raise HplError(f"{home / name}: file not found; {found}, or fetch it again")
        if file.name != name:
            notes.append(f"{file.name} was read for {name}")
        listed = [
            _listed_picture(line, f"{file}: line {number}", home / folder, f"{prefix}{folder}", split, role)
            for number, line in enumerate(read_utf8(file).split("\n"), start=1)
            if line.strip()
        ]
        if not listed:
            raise HplError(f"{file}: no picture; expected lines such as 0000/0000_000_01_0303morning_0015_0.jpg 0")
        records += listed
    return Reading(records=records, tasks=(I2I.name,), version=version, notes=notes)


def _find_list(home: Path, name: str) -> Path | None:
    """Find a list: of its name, or as programs that hide or repeat suffixes leave it, if there is but one of these."""
    if (home / name).is_file():
        return home / name
    spellings = (name.removesuffix(".txt"), name, f"{name}.txt")
    others = [entry for entry in sorted(home.iterdir()) if entry.name.lower() in spellings and entry.is_file()]
    return others[0] if len(others) == 1 else None


def _listed_picture(line: str, place: str, folder: Path, prefix: str, split: str, role: str) -> PictureRecord:
    """Read one line of a list: `0000/0000_000_01_0303morning_0015_0.jpg 0`, path in the folder and pid."""
    fields = line.split()
    if len(fields) != 2:
        raise HplError(f"{place}: {line.strip()!r} has {len(fields)} fields; expected path and pid")
    pid = whole_number(fields[1])
    if pid is None:
        raise HplError(f"{place}: pid {fields[1]!r}; expected a whole number >= 0")
    path = checked_path(folder, fields[0], place)
    *parents, file_name = path.split("/")
    camid = whole_number("".join(file_name.split("_")[2:3]))
    if camid is None:
        raise HplError(
            f"{place}: file name {file_name!r}; expected the camera as third field, as in 0000_000_01_0303morning_0015_0.jpg"
        )
    if parents and whole_number(parents[-1]) not in (None, pid):
        raise HplError(f"{place}: pid {pid} of {path!r}; expected that of its folder, {int(parents[-1])}")
    return PictureRecord(
        path=f"{prefix}/{path}", split=split, role=role, person=f"{split}/{pid:04d}", source_pid=pid, camid=camid
    )
