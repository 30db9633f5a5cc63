"""Market-1501 (Zheng et al., ICCV 2015): three folders; person and camera stand in each file name (`0002_c1s1_000451_03.jpg`)."""

import re
from pathlib import Path

from hpl.files import HplError
from hpl.manifests.records import DISTRACTOR_PID, PictureRecord, existing_folder

FOLDERS = {"bounding_box_train": ("train", "train"), "query": ("test", "query"), "bounding_box_test": ("test", "gallery")}
FILE_NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+\.jpg(\.jpg)?")
NOT_PICTURES = {"thumbs.db", ".ds_store"}


def read_market1501(root: Path) -> list[PictureRecord]:
    """Read the folders. Junk keeps pid -1, distractors pid 0. Raises HplError naming the first file whose name does not parse."""
    existing_folder(root, f"the Market-1501 folder with {', '.join(FOLDERS)}")
    records = []
    for folder, (split, role) in FOLDERS.items():
        existing_folder(root / folder, f"the {role} pictures of Market-1501, 0002_c1s1_000451_03.jpg and so on")
        for file in sorted((root / folder).iterdir(), key=lambda path: path.name):
            if file.name.lower() in NOT_PICTURES:
                continue
            match = FILE_NAME.fullmatch(file.name)
            if not match:
                raise HplError(
                    f"{file}: file name; expected the form 0002_c1s1_000451_03.jpg (pid, camera and sequence, frame, box)"
                )
            pid = int(match["pid"])
            if pid <= DISTRACTOR_PID and role != "gallery":
                raise HplError(f"{file}: pid {pid} is junk or a distractor; expected such pictures in bounding_box_test alone")
            records.append(
                PictureRecord(
                    path=f"{folder}/{file.name}",
                    split=split,
                    role=role,
                    source_pid=pid,
                    camid=int(match["camid"]),
                    anonymous=pid <= DISTRACTOR_PID,
                )
            )
        if not records or records[-1].role != role:
            raise HplError(f"{root / folder}: no picture; expected 0002_c1s1_000451_03.jpg and so on")
    return records
