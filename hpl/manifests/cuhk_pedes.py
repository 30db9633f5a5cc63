"""CUHK-PEDES (Li et al., CVPR 2017): `reid_raw.json` and `imgs/`. Ids start at 1; the JSON alone gives the split."""

from pathlib import Path

from hpl.files import HplError, read_json
from hpl.manifests.records import PictureRecord, checked_path, existing_folder

ROLE_OF_SPLIT = {"train": "train", "val": "val", "test": "gallery"}


def read_cuhk_pedes(root: Path) -> list[PictureRecord]:
    """Read the annotation file. Raises HplError naming the record and the key at the first fault of each kind of content."""
    existing_folder(root, "the CUHK-PEDES folder with reid_raw.json and imgs/")
    annotation = root / "reid_raw.json"
    if not annotation.is_file():
        unsplit = root / "caption_all.json"
        hint = (
            f"; {unsplit.name} is there, but it has no split: use the reid_raw.json that goes with it"
            if unsplit.is_file()
            else ""
        )
        raise HplError(f"{annotation}: file not found; expected CUHK-PEDES annotations with splits{hint}")
    existing_folder(root / "imgs", "the pictures of CUHK-PEDES")
    content = read_json(annotation)
    if not isinstance(content, list) or not content:
        raise HplError(f"{annotation}: expected a non-empty list of records, found {type(content).__name__}")
    records = [_record(root, entry, f"{annotation}: record {number}") for number, entry in enumerate(content)]
    seen: dict[str, int] = {}
    for number, record in enumerate(records):
        if record.path in seen:
            raise HplError(
                f"{annotation}: records {seen[record.path]} and {number} name the same picture {record.path}; expected each once"
            )
        seen[record.path] = number
    return records


def _record(root: Path, entry: object, place: str) -> PictureRecord:
    if not isinstance(entry, dict):
        raise HplError(f"{place}: expected an object with file_path, id, split and captions, found {type(entry).__name__}")
    for key in ("file_path", "id", "split", "captions"):
        if key not in entry:
            raise HplError(f"{place}: key {key!r} is missing; expected file_path, id, split and captions")
    split = str(entry["split"]).lower()
    if split not in ROLE_OF_SPLIT:
        raise HplError(f"{place}: split {entry['split']!r}; expected train, val or test")
    pid = entry["id"]
    if type(pid) is not int or not 1 <= pid < 2**31:
        raise HplError(f"{place}: id {pid!r}; expected an integer >= 1")
    captions = entry["captions"]
    if not isinstance(captions, list) or not captions:
        raise HplError(f"{place}: captions {captions!r}; expected a non-empty list of sentences")
    for caption in captions:
        if not isinstance(caption, str) or not caption.strip() or any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise HplError(f"{place}: empty or broken caption {caption!r} of {entry['file_path']!r}; expected a sentence")
    path = checked_path(root / "imgs", entry["file_path"], place)
    return PictureRecord(
        path=f"imgs/{path}",
        split=split,
        role=ROLE_OF_SPLIT[split],
        source_pid=pid,
        captions=tuple(" ".join(caption.split()) for caption in captions),
    )
