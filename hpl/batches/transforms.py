"""Pixels -> what the towers see, and the augmentations of training."""

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from torchvision.transforms import v2


def normalise(images_B3HW: Tensor) -> Tensor:
    """uint8 pictures to float32 with CLIP's mean and standard deviation."""
    mean = torch.tensor(OPENAI_DATASET_MEAN, device=images_B3HW.device)[:, None, None]
    deviation = torch.tensor(OPENAI_DATASET_STD, device=images_B3HW.device)[:, None, None]
    return (images_B3HW.float() / 255 - mean) / deviation


def augment(images_B3HW: Tensor, pad: int, erase_probability: float, seed: int) -> Tensor:
    """Flip, pad and crop, and erase each picture by itself (Bag of Tricks, IRRA). uint8 to uint8; random by `seed` alone.

    Erased pixels take CLIP's mean colour, which normalisation turns into zero.
    """
    height, width = images_B3HW.shape[-2:]
    fill = [round(255 * value) for value in OPENAI_DATASET_MEAN]
    steps = [v2.RandomHorizontalFlip(0.5)]
    if pad:
        steps.append(v2.RandomCrop((height, width), padding=pad, fill=fill))
    if erase_probability:
        steps.append(v2.RandomErasing(erase_probability, scale=(0.02, 0.4), value=fill))
    transform = v2.Compose(steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([transform(image_3HW) for image_3HW in images_B3HW])
