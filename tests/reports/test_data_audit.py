"""The audit page says what was read, and shows a user's text as text."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpl.manifests.tables import Manifests
from hpl.reports.data_audit import write_data_audit
from tests.support.native_sets import CUHK, MARKET, build


@pytest.fixture
def audited(cuhk: Path, market: Path, tmp_path: Path) -> Path:
    shutil.copy(market / "query" / "0001_c1s1_001051_00.jpg", cuhk / "imgs" / "cam_a" / "000_45.bmp")  # a leak
    shutil.copy(
        market / "bounding_box_train" / "0002_c1s1_000451_03.jpg", market / "bounding_box_train" / "0007_c1s1_000453_01.jpg"
    )
    records = json.loads((cuhk / "reid_raw.json").read_text())
    records[2]["captions"] = records[3]["captions"] = ["`<b>same</b>` | caption"]
    (cuhk / "reid_raw.json").write_text(json.dumps(records))
    (market / "bounding_box_test" / "0001_c2s1_001052_00.jpg").write_bytes(b"")
    build(tmp_path, tmp_path / "out", datasets=(CUHK, {**MARKET, "official": True}), on_bad_image="skip")
    return tmp_path / "out"


def render(out: Path, folder: Path) -> tuple[str, dict]:
    count = len(Manifests(out / "manifests").captions)
    write_data_audit(out / "manifests", np.arange(count) + 30, 32, folder / "a.md", folder / "a.json", folder / "figures")
    return (folder / "a.md").read_text(), json.loads((folder / "a.json").read_text())


def test_the_page_tells_what_happened(audited: Path, tmp_path: Path) -> None:
    page, content = render(audited, tmp_path / "page")
    for line in (
        "| CUHK-PEDES | train | dropped | 1 | 2 | 4 |",
        "| Market-1501 | test | gallery | 0 | 2 (1 junk, 1 distractors) | 0 |",
        "| CUHK-PEDES + Market-1501 | 1 | 0 |",
        "(`dropped`): 1 people of training and 0 of pretraining who occur in a test split, and 0 of validation",
        "**counts differ from the published ones**: train: 2 people, officially 751",
        "1 pictures stand in this set once more, pixel for pixel; 1 of them under another person, 0 in another split",
        "1 sentences stand under several people (2 captions)",
        "`'<b>same</b>' | caption`: 2 people",
        "captions of 30 to 35 tokens (median 32.5); 3 are cut",
        "0001_c2s1_001052_00.jpg: empty file (0 bytes)",
        "2 cameras; people seen by so many of them: 2 by 1, 1 by 2",
    ):
        assert line in page, line
    assert content["datasets"]["CUHK-PEDES"]["caption_tokens"]["cut"] == 3
    assert content["datasets"]["Market-1501"]["height"] == {"min": 32, "median": 32.0, "max": 32}
    for name in ("sizes", "pairs"):
        assert f"(figures/{name}.png)" in page and Image.open(tmp_path / "page" / "figures" / f"{name}.png").width > 200


def test_the_same_bytes_twice(audited: Path, tmp_path: Path) -> None:
    for number in "12":
        render(audited, tmp_path / number)
    files = [file.relative_to(tmp_path / "1") for file in (tmp_path / "1").rglob("*.*")]
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes(), file


def test_one_set_without_links_and_captions_has_a_page_too(market: Path, tmp_path: Path) -> None:
    build(tmp_path, tmp_path / "out", datasets=(MARKET,))
    page, _ = render(tmp_path / "out", tmp_path / "page")
    assert "No picture stands in two sets." in page and "pairs.png" not in page and "## Skipped pictures\n\nNone." in page
