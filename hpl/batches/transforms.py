"""The augmentations of training."""

import math

import torch
from open_clip.constants import OPENAI_DATASET_MEAN
from torch import Tensor

FILL = [round(255 * value) for value in OPENAI_DATASET_MEAN]  # uint8; normalisation makes it about zero
ERASE_AREA, ERASE_RATIO, ERASE_ATTEMPTS = (0.02, 0.4), (0.3, 3.3), 10  # shares of the picture; height / width


def augment(
    images_B3HW: Tensor, pad: int, erase_probability: float, seed: int, rows: Tensor | None = None, total: int = 0
) -> Tensor:
    """Flip, pad and crop, and erase each picture by itself (Bag of Tricks, IRRA). uint8 to uint8; random by `seed` alone.

    Half the pictures are flipped; each is cut anew from itself with a border of `pad` pixels, less than both its sides; with
    `erase_probability` a rectangle as torchvision's RandomErasing draws it (ERASE_AREA, ERASE_RATIO) is erased. Border and
    rectangle take CLIP's mean colour. On the CPU.

    `rows` says that the pictures are these of a batch of `total`: each comes out as it would among all of them.

    Not torchvision's v2 transforms: on a batch these draw one set of parameters for all its pictures, and picture by picture they
    take about four times as long as this (128 pictures of 384 x 128, one core).
    """
    count, _, height, width = images_B3HW.shape
    rows, total = (torch.arange(count), count) if rows is None else (rows, total)
    generator = torch.Generator().manual_seed(seed)
    flips = (torch.rand(total, generator=generator) < 0.5)[rows].tolist()
    moves = torch.randint(-pad, pad + 1, (total, 2), generator=generator)[rows].tolist()
    rectangles = _rectangles(total, height, width, erase_probability, generator)[rows].tolist()
    fill_311 = torch.tensor(FILL, dtype=torch.uint8)[:, None, None]
    out_B3HW = fill_311.expand(3, height, width).repeat(count, 1, 1, 1)
    for out, image, flip, (y, x), (top, left, bottom, right) in zip(out_B3HW, images_B3HW, flips, moves, rectangles, strict=True):
        if flip:
            image = image.flip(-1)
        target = out[:, max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
        target.copy_(image[:, max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)])
        if bottom > top:
            out[:, top:bottom, left:right] = fill_311
    return out_B3HW


def _rectangles(count: int, height: int, width: int, probability: float, generator: torch.Generator) -> Tensor:
    """(top, left, bottom, right) of what is erased from each picture, int64 count x 4; zeros where nothing is.

    As in RandomErasing: of ERASE_ATTEMPTS draws of area and side ratio, the first that fits into the picture.
    """
    chosen, places = (torch.rand(count, *shape, generator=generator) for shape in ((), (2,)))
    area, ratio = (torch.rand(count, ERASE_ATTEMPTS, generator=generator) for _ in range(2))
    low, high = (math.log(value) for value in ERASE_RATIO)
    area = height * width * (ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * area)
    ratio = torch.exp(low + (high - low) * ratio)
    sizes = torch.stack([(area * ratio).sqrt().round(), (area / ratio).sqrt().round()], dim=-1)  # count x attempts x 2
    frame = torch.tensor([height, width])
    fits = (sizes < frame).all(dim=-1)
    size = sizes[torch.arange(count), fits.int().argmax(dim=1)]  # argmax: the first of them
    corner = (places * (frame - size + 1)).floor()
    rectangles = torch.cat([corner, corner + size], dim=1).long()
    return rectangles * ((chosen < probability) & fits.any(dim=1))[:, None]
