"""Pixels and sentences -> features, as evaluation and search both take them from the towers."""

from collections.abc import Sequence

import numpy as np
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, at_end


def normalise(images_B3HW: Tensor) -> Tensor:
    """uint8 pictures to float32 with CLIP's mean and standard deviation, on their device.

    On a CPU into memory that numpy allocates, because numpy asks for huge pages: the page faults of torch's own memory take
    longer than the arithmetic.
    """
    device = images_B3HW.device
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    scale, shift = 1 / (255 * deviation), -mean / deviation
    if device.type != "cpu":
        return images_B3HW.float().mul_(scale).add_(shift)
    out_B3HW = torch.from_numpy(np.empty(images_B3HW.shape, np.float32))
    for out, images in zip(out_B3HW.split(4), images_B3HW.split(4), strict=True):  # a few at a time stay in the core's cache
        out.copy_(images).mul_(scale).add_(shift)
    return out_B3HW


def encode_pixels(tower: ImageTower, pixels_B3HW: np.ndarray, device: torch.device, flip: bool = False) -> np.ndarray:
    """Encode uint8 pictures. Returns v_t2i and v_i2i, float32, B x 2 x D, not normalised; call it without gradients.

    Args:
        tower: on `device`, in evaluation mode.
        flip: take the mean with the features of the mirror image.
    """
    images = normalise(torch.from_numpy(pixels_B3HW).to(device))
    features = tower(images)[:, :2].float()
    if flip:
        features = (features + tower(images.flip(-1))[:, :2].float()) / 2
    return features.cpu().numpy()


def encode_sentences(tower: TextTower, sentences: Sequence[str], context_length: int, device: torch.device) -> np.ndarray:
    """Encode sentences. Returns t_eos, float32, B x D, not normalised; call it without gradients, as `encode_pixels`."""
    tokens = tokenize(sentences, context_length)
    return at_end(*tower(tokens.to(device))).float().cpu().numpy()
