"""Small things that many tests need: a tiny CLIP, and miniature data sets in the native formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image

from hpl.backbones.weights import build_clip

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": [24, 12], "layers": 2, "width": 16, "head_width": 8, "patch_size": 6},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}


@pytest.fixture
def clip() -> CLIP:
    """A CLIP of width 16 with 8 patches, random but the same each time."""
    torch.manual_seed(0)
    model = build_clip(TINY).eval()
    with torch.no_grad():  # projections of a fresh CLIP are random, the text one is not initialised by open_clip's classes alone
        model.text_projection.normal_(std=24**-0.5)
    return model


def picture(seed: int, size: tuple[int, int] = (16, 32)) -> Image.Image:
    """A smooth random picture, so that JPEG keeps it."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    """Save, making the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def cuhk(tmp_path: Path) -> Path:
    """A miniature CUHK-PEDES: capital split names, three captions, a one-picture id, stray white space."""
    root = tmp_path / "CUHK-PEDES"
    records = [
        ("cam_a/000_45.bmp", 1, "train", ["A man in red.", "He walks.", "Third  caption\n here."]),
        ("CUHK01/0001.png", 1, "TRAIN", ["A man, again."]),
        ("Market/0002.jpg", 2, "val", ["A woman.", "She stands."]),
        ("test_query/p3.jpg", 3, "Test", ["A child."]),
    ]
    for number, (path, *_) in enumerate(records):
        save(picture(number), root / "imgs" / path)
    entries = [
        {
            "file_path": path,
            "id": pid,
            "split": split,
            "captions": captions,
            "processed_tokens": [caption.split() for caption in captions],
        }
        for path, pid, split, captions in records
    ]
    (root / "reid_raw.json").write_text(json.dumps(entries))
    return root


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A miniature Market-1501: two training people, one query, a match, junk, a distractor, and a stray file."""
    root = tmp_path / "Market-1501"
    names = [
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0002_c2s1_000452_01.jpg",
        "bounding_box_train/0007_c1s1_000453_01.jpg",
        "query/0001_c1s1_001051_00.jpg",
        "bounding_box_test/0001_c2s1_001052_00.jpg",
        "bounding_box_test/-1_c3s1_000001_00.jpg",
        "bounding_box_test/0000_c4s6_000002_00.jpg",
    ]
    for number, name in enumerate(names):
        save(picture(100 + number), root / name)
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"not a picture")
    return root
