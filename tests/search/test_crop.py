"""Boxes of four formats cut the same people out."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpl.files import HplError
from hpl.search.crop import crop_frames

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "frames" / "000007.png")
    return tmp_path / "frames"


def boxes(folder: Path, kind: str) -> Path:
    if kind == "yolo":
        (folder / "labels").mkdir()
        (folder / "labels" / "000007.txt").write_text("0 0.25 0.5 0.1666666667 0.5\n3 0.5 0.5 0.1 0.1\n")
        return folder / "labels"
    if kind == "coco":
        content = {
            "images": [{"id": 3, "file_name": "000007.png"}],
            "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}],
            "annotations": [{"image_id": 3, "category_id": n, "bbox": [10, 10, 10, 20], "track_id": 4} for n in (1, 2)],
        }
        (folder / "boxes.json").write_text(json.dumps(content))
        return folder / "boxes.json"
    told = {
        "csv": "frame,left,top,width,height,track,time\n000007.png,10,10,10,20,4,12.5\n",
        "mot": "7,4,10,10,10,20,1,-1,-1,-1\n",
    }
    file = folder / {"csv": "boxes.csv", "mot": "gt.txt"}[kind]
    file.write_text(told[kind])
    return file


@pytest.mark.parametrize("kind", ["mot", "coco", "yolo", "csv"])
def test_each_format_cuts_the_same_pixels(frames: Path, tmp_path: Path, kind: str) -> None:
    count, faults = crop_frames(frames, boxes(tmp_path, kind), tmp_path / "crops", "9")
    assert (count, faults) == (1, [])
    (row,) = csv.DictReader((tmp_path / "crops" / "crops.csv").open())
    assert row["camera"] == "9" and row["track"] == ("" if kind == "yolo" else "4")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "crops" / row["path"])), PIXELS[10:30, 10:20])


def test_boxes_outside_and_frames_that_are_not_there_are_named(frames: Path, tmp_path: Path) -> None:
    file = tmp_path / "gt.txt"
    file.write_text("7,1,50,30,100,100,1\n7,2,100,0,10,10,1\n8,1,0,0,5,5,1\n")
    count, faults = crop_frames(frames, file, tmp_path / "crops")
    assert count == 1 and len(faults) == 2 and "outside" in faults[0] and "frame 8" in faults[1]
    file.write_text("7,1,a,0,1,1\n")
    with pytest.raises(HplError, match="line 1.*finite"):
        crop_frames(frames, file, tmp_path / "other")
    assert not (tmp_path / "other").exists()
