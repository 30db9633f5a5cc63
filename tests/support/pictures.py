"""Pictures drawn at random, and where they are written."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (16, 32)) -> Image.Image:
    """A smooth random picture, so that JPEG keeps it."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    """Save, making the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path
