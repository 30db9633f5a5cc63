"""Pictures and captions -> features, for evaluation: in batches, without gradients."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from hpl.backbones.towers import ImageTower, TextTower, at_end
from hpl.batches.text import tokenize
from hpl.batches.transforms import normalise
from hpl.manifests.pictures import read_pictures


@torch.inference_mode()
def extract_image_features(
    tower: ImageTower, files: list[Path], size: tuple[int, int], batch_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Read picture files and encode them. Returns (v_t2i, v_i2i), float32, n x D each, on the CPU, not normalised."""
    tower.eval()

    def encode(start: int) -> Tensor:
        images = torch.from_numpy(read_pictures(files[start : start + batch_size], *size))
        return tower(normalise(images.to(device)))[:, :2].float().cpu()

    both = _in_batches(encode, len(files), batch_size, "encode pictures", "pictures")
    return both[:, 0].contiguous(), both[:, 1].contiguous()


@torch.inference_mode()
def extract_text_features(
    tower: TextTower, captions: list[str], context_length: int, batch_size: int, device: torch.device
) -> Tensor:
    """Encode captions. Returns t_eos, float32, n x D, on the CPU, not normalised."""
    tower.eval()

    def encode(start: int) -> Tensor:
        tokens = tokenize(captions[start : start + batch_size], context_length)
        return at_end(*tower(tokens.to(device))).float().cpu()

    return _in_batches(encode, len(captions), batch_size, "encode captions", "captions")


def _in_batches(encode: Callable[[int], Tensor], count: int, batch_size: int, title: str, unit: str) -> Tensor:
    parts = []
    with tqdm(total=count, desc=title, unit=unit) as progress:
        for start in range(0, count, batch_size):
            parts.append(encode(start))
            progress.update(len(parts[-1]))
    return torch.cat(parts)
