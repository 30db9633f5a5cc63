"""Pictures and captions -> features, for evaluation: in batches, without gradients.

Several processes share the batches, not the rows within them, so that features have the same bits for any number of processes; each of
them gets all features.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, at_end
from hpl.batches.transforms import normalise
from hpl.manifests.pictures import read_pictures
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.runtime.distributed import gather_rows, rank, share, world_size


@torch.inference_mode()
def extract_image_features(
    tower: ImageTower,
    files: list[Path],
    size: tuple[int, int],
    batch_size: int,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
    flip: bool = False,
) -> tuple[Tensor, Tensor]:
    """Read picture files and encode them. Returns (v_t2i, v_i2i), float32, n x D each, on the CPU, not normalised.

    Args:
        flip: encode the mirror image of each picture too, and return the mean of both.
    """
    tower.eval()

    def encode(start: int) -> Tensor:
        images = normalise(torch.from_numpy(read_pictures(files[start : start + batch_size], *size)).to(device))
        features = tower(images)[:, :2].float()
        if flip:
            features = (features + tower(images.flip(-1))[:, :2].float()) / 2
        return features.cpu()

    shape = 2, tower.visual.proj.shape[1]
    both = _in_batches(encode, len(files), batch_size, shape, "pictures", checkpoint)
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

    shape = tower.text_projection.shape[1:]
    return _in_batches(encode, len(captions), batch_size, shape, "captions", checkpoint)


def _in_batches(
    encode: Callable[[int], Tensor], count: int, batch_size: int, shape: Sequence[int], what: str, checkpoint: Checkpoint
) -> Tensor:
    starts = range(0, count, batch_size)
    shares = [starts[share(len(starts), number, world_size())] for number in range(world_size())]
    counts = [sum(min(batch_size, count - start) for start in each) for each in shares]
    parts = [torch.zeros(0, *shape)]
    with tqdm(total=counts[rank()], desc=f"encode {what}", unit=what, disable=rank() > 0) as progress:
        for start in shares[rank()]:
            parts.append(torch.from_numpy(checkpoint.block(f"{what}-{start}", lambda start=start: encode(start).numpy())))
            progress.update(len(parts[-1]))
    return gather_rows(torch.cat(parts), counts)
