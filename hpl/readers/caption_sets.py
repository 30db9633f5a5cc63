"""CUHK-PEDES, ICFG-PEDES and RSTPReid: one JSON annotation, which alone gives the split, and the pictures under imgs/."""

from dataclasses import dataclass
from pathlib import Path

from hpl.files import HplError, read_json
from hpl.readers.records import ROLE_OF_SPLIT, PictureRecord, Reading, checked_captions, checked_path, existing_folder, find_root
from hpl.tasks import T2I


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How one of the sets writes its annotation."""

    name: str
    files: tuple[str, ...]  # names of the annotation, the official one first
    path_key: str = "file_path"
    first_id: int = 0
    has_val: bool = True


def read_cuhk_pedes(root: Path) -> Reading:
    """Read CUHK-PEDES (Li et al., CVPR 2017): ids from 1. Raises HplError naming the record and key at the first fault."""
    return _read(root, _Layout(name="CUHK-PEDES", files=("reid_raw.json",), first_id=1))


def read_icfg_pedes(root: Path) -> Reading:
    """Read ICFG-PEDES (Ding et al., 2021): ids from 0, no val; its folders train and test are MSMT17's and mean nothing here."""
    return _read(root, _Layout(name="ICFG-PEDES", files=("ICFG-PEDES.json", "ICFG_PEDES.json"), has_val=False))


def read_rstpreid(root: Path) -> Reading:
    """Read RSTPReid (Zhu et al., ACM MM 2021): ids from 0; some captions hold stray characters and code, which are kept."""
    return _read(root, _Layout(name="RSTPReid", files=("data_captions.json",), path_key="img_path"))


def _read(root: Path, layout: _Layout) -> Reading:
    name, files = layout.name, layout.files
    what = f"the {name} folder with {files[0]} and imgs/"
    home, prefix, notes = find_root(root, (*files, "imgs"), what)
    annotation = _find_annotation(home, name, files)
    if annotation.name != files[0]:
        notes.append(f"{annotation.name} was read, a mirror's spelling of {files[0]}")
    existing_folder(home / "imgs", f"the pictures of {name}")
    content = read_json(annotation)
    if not isinstance(content, list) or not content:
        raise HplError(f"{annotation}: expected a non-empty list of records, found {type(content).__name__}")
    place = f"{annotation}: record"
    records = [_record(entry, number, place, layout, home, prefix) for number, entry in enumerate(content)]
    if not layout.has_val and any(record.split == "val" for record in records):
        notes.append(f"{annotation.name} has a val split; the official {name} has none")
    learnt, tested = ({record.person for record in records if (record.split == "test") == is_test} for is_test in (False, True))
    if both := sorted(learnt & tested):
        notes.append(f"{len(both)} people are in test and in another split, such as {both[0]}; the official {name} shares none")
    return Reading(records=records, tasks=(T2I.name,), place=place, notes=notes)


def _find_annotation(home: Path, name: str, files: tuple[str, ...]) -> Path:
    found = [home / file for file in files if (home / file).is_file()]
    if len(found) > 1:
        raise HplError(f"{home}: both {' and '.join(file.name for file in found)} are there; expected one of them")
    if not found:
        unsplit = home / "caption_all.json"
        hint = (
            f"; {unsplit.name} is there, but it has no split: use the {files[0]} that goes with it" if unsplit.is_file() else ""
        )
        raise HplError(f"{home / files[0]}: file not found; expected {name} annotations with splits{hint}")
    return found[0]


def _record(entry: object, number: int, place: str, layout: _Layout, home: Path, prefix: str) -> PictureRecord:
    place = f"{place} {number}"
    expected = f"expected {layout.path_key}, id, split and captions"
    if not isinstance(entry, dict):
        raise HplError(f"{place}: found {type(entry).__name__}; {expected}")
    for key in (layout.path_key, "id", "split", "captions"):
        if key not in entry:
            raise HplError(f"{place}: key {key!r} is missing; {expected}")
    split = entry["split"].lower() if isinstance(entry["split"], str) else ""
    if split not in ROLE_OF_SPLIT:
        raise HplError(f"{place}: split {entry['split']!r}; expected train, val or test")
    pid = entry["id"]
    if type(pid) is not int or not layout.first_id <= pid < 2**31:
        raise HplError(f"{place}: id {pid!r}; expected an integer >= {layout.first_id}")
    return PictureRecord(
        path=f"{prefix}imgs/{checked_path(home / 'imgs', entry[layout.path_key], place)}",
        split=split,
        role=ROLE_OF_SPLIT[split],
        person=str(pid),
        source_pid=pid,
        captions=checked_captions(entry["captions"], place),
        number=number,
    )
