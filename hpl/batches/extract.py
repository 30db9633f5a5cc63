"""Pictures and captions -> features, for evaluation: in batches, without gradients."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from hpl.backbones.towers import ImageTower, TextTower, at_end
from hpl.batches.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.batches.text import tokenize
from hpl.batches.transforms import normalise
from hpl.manifests.pictures import read_pictures


@torch.inference_mode()
def extract_image_features(
    tower: ImageTower,
    files: list[Path],
    size: tuple[int, int],
    batch_size: int,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> tuple[Tensor, Tensor]:
    """Read picture files and encode them. Returns (v_t2i, v_i2i), float32, n x D each, on the CPU, not normalised."""
    tower.eval()

    def encode(start: int) -> Tensor:
        images = torch.from_numpy(read_pictures(files[start : start + batch_size], *size))
        return tower(normalise(images.to(device)))[:, :2].float().cpu()

    both = _in_batches(encode, len(files), batch_size, "pictures", checkpoint)
    return both[:, 0].contiguous(), both[:, 1].contiguous()


@torch.inference_mode()
def extract_text_features(
    tower: TextTower,
    captions: Sequence[str],
    context_length: int,
    batch_size: int,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> Tensor:
    """Encode captions. Returns t_eos, float32, n x D, on the CPU, not normalised."""
    tower.eval()

    def encode(start: int) -> Tensor:
        tokens = tokenize(captions[start : start + batch_size], context_length)
        return at_end(*tower(tokens.to(device))).float().cpu()

    return _in_batches(encode, len(captions), batch_size, "captions", checkpoint)


def _in_batches(encode: Callable[[int], Tensor], count: int, batch_size: int, what: str, checkpoint: Checkpoint) -> Tensor:
    parts = []
    with tqdm(total=count, desc=f"encode {what}", unit=what) as progress:
        for start in range(0, count, batch_size):
            parts.append(torch.from_numpy(checkpoint.block(f"{what}-{start}", lambda start=start: encode(start).numpy())))
            progress.update(len(parts[-1]))
    return torch.cat(parts)
