"""A model folder of the tiny CLIP, and pictures that it can encode."""

from pathlib import Path

import numpy as np
from PIL import Image

from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.trained import save_trained
from tests.support.tiny import SIZE, TINY, fresh_clip


def save_small_model(folder: Path, noise: float = 0.5) -> Path:
    folder.mkdir(parents=True)
    clip = fresh_clip()
    images = ImageTower(clip, task_routing=True, i2i_token_noise=noise)
    save_trained(folder, images, TextTower(clip), {"clip": TINY, "task_routing": True, "input": SIZE.model_dump()})
    return folder


def draw_pictures(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"c{number % 3}_{number:04d}.png" for number in range(first, first + count)]
    for number, file in enumerate(files, first):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 15, 3), np.uint8)).save(file)
    return files
