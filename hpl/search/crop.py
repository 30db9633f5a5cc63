"""People cut out of full frames, by boxes from a file: MOT text, COCO JSON, YOLO text or CSV."""

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hpl.files import HplError, output_folder, parsing, read_json
from hpl.pictures import decode_picture

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_COCO_PERSON, _YOLO_PERSON, _MOT_PERSON = 1, 0, "1"


@dataclass(frozen=True)
class Box:
    """A person in a frame: left, top, width, height in pixels, or in shares of the frame.

    Attributes:
        frame: name of the frame below the folder of frames, or its number.
    """

    frame: str | int
    left: float
    top: float
    width: float
    height: float
    track: str = ""
    time: str = ""
    relative: bool = False


def read_boxes(file: Path) -> list[Box]:
    """Read boxes of people from MOT .txt, COCO .json, a folder of YOLO .txt, or .csv with frame,left,top,width,height."""
    if not file.exists():
        raise HplError(f"{file}: file not found; expected MOT .txt, COCO .json, a folder of YOLO .txt, or .csv")
    with parsing(file, "expected boxes as docs/search.md tells of them"):
        if file.is_dir():
            return [box for path in sorted(file.glob("*.txt")) for box in _yolo(path)]
        readers = {".txt": _mot, ".json": _coco, ".csv": _csv}
        if file.suffix.lower() not in readers:
            raise HplError(f"{file}: expected .txt (MOT), .json (COCO), .csv, or a folder (YOLO)")
        return list(readers[file.suffix.lower()](file))


def _numbers(file: Path, line: int, cells: Iterable[str]) -> list[float]:
    try:
        found = [float(cell) for cell in cells]
    except (ValueError, TypeError):
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise HplError(f"{file}: line {line}: {', '.join(map(str, cells))}; expected finite numbers")
    return found


def _mot(file: Path) -> Iterable[Box]:
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or (len(cells) == 9 and cells[7] != _MOT_PERSON):  # ground truth: the class stands in the 8th
            continue
        if len(cells) < 6:
            raise HplError(f"{file}: line {number} has {len(cells)} cells; expected frame,track,left,top,width,height,...")
        frame, track, left, top, width, height = _numbers(file, number, cells[:6])
        yield Box(int(frame), left, top, width, height, track="" if track < 0 else f"{track:g}")


def _yolo(file: Path) -> Iterable[Box]:
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) < 5:
            raise HplError(f"{file}: line {number} has {len(cells)} numbers; expected class x y width height")
        kind, x, y, width, height = _numbers(file, number, cells[:5])
        if kind == _YOLO_PERSON:
            yield Box(file.stem, x - width / 2, y - height / 2, width, height, relative=True)


def _coco(file: Path) -> Iterable[Box]:
    content = read_json(file)
    people = {each["id"] for each in content.get("categories", []) if each["name"] == "person"} or {_COCO_PERSON}
    names = {each["id"]: each["file_name"] for each in content["images"]}
    for number, each in enumerate(content["annotations"], 1):
        if each["category_id"] in people and not each.get("iscrowd"):
            left, top, width, height = _numbers(file, number, each["bbox"])
            yield Box(names[each["image_id"]], left, top, width, height, track=str(each.get("track_id", "")))


def _csv(file: Path) -> Iterable[Box]:
    with open(file, encoding="utf-8-sig", newline="") as table:
        for number, row in enumerate(csv.DictReader(table), 2):
            if missing := {"frame", "left", "top", "width", "height"} - row.keys():
                raise HplError(f"{file}: no column {', '.join(sorted(missing))}; expected frame,left,top,width,height")
            left, top, width, height = _numbers(file, number, [row[name] for name in ("left", "top", "width", "height")])
            yield Box(row["frame"], left, top, width, height, track=row.get("track") or "", time=row.get("time") or "")


def crop_frames(frames: Path, boxes: Path, out: Path, camera: str | None = None) -> tuple[int, list[str]]:
    """Write each box as PNG into a new folder, and crops.csv, which `hpl index add` reads.

    Returns:
        Number of crops, and a line for each box without a frame or outside of it.

    Raises:
        HplError: nothing to read, the folder exists, or no box lies in any frame.
    """
    if out.exists():
        raise HplError(f"{out}: is there already; expected a new folder for the crops")
    if not frames.is_dir():
        raise HplError(f"{frames}: folder not found; expected one of full frames")
    files = _files_by_name(frames)
    wanted: dict[str | int, list[Box]] = {}
    for box in read_boxes(boxes):
        wanted.setdefault(box.frame, []).append(box)
    faults: list[str] = []
    rows: list[list[str]] = []
    with output_folder(out) as folder:
        for name, people in wanted.items():
            file = files.get(name) or files.get(Path(str(name)).stem)
            if file is None:
                faults.append(f"frame {name}: not in {frames}")
                continue
            try:
                picture = Image.fromarray(decode_picture(file))
            except HplError as error:
                faults.append(str(error))
                continue
            for box in people:
                edges = _edges(box, *picture.size)
                if edges is None:
                    faults.append(f"frame {name}: box at {box.left:g}, {box.top:g} lies outside of it")
                    continue
                crop = f"{len(rows):07d}.png"
                picture.crop(edges).save(folder / crop)
                rows.append([crop, camera or "", box.time, box.track, str(file)])
        if not rows:
            raise HplError(f"{boxes}: none of its boxes lies in a frame of {frames}" + (f" ({faults[0]})" if faults else ""))
        with open(folder / "crops.csv", "w", encoding="utf-8", newline="") as table:
            csv.writer(table, lineterminator="\n").writerows([["path", "camera", "time", "track", "frame"], *rows])
    return len(rows), faults


def _files_by_name(frames: Path) -> dict[str | int, Path]:
    """Find frames by path below the folder, by name without suffix, and by the number that ends that name."""
    found: dict[str | int, Path] = {}
    for path in sorted(frames.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            number = re.search(r"\d+$", path.stem)
            found[path.relative_to(frames).as_posix()] = path
            found.setdefault(path.stem, path)
            if number:
                found.setdefault(int(number[0]), path)
    return found


def _edges(box: Box, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom inside the frame, in pixels; None if nothing is left."""
    across, down = (width, height) if box.relative else (1, 1)
    left, top = max(round(box.left * across), 0), max(round(box.top * down), 0)
    right = min(round((box.left + box.width) * across), width)
    bottom = min(round((box.top + box.height) * down), height)
    return (left, top, right, bottom) if right > left and bottom > top else None
