"""Steps of training as tensors: pictures come from the packed array, whole batches at a time, in worker processes if asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpl.batches.transforms import augment, normalise
from hpl.manifests.shards import ShardReader


@dataclass(frozen=True)
class Batch:
    """B pictures, the first B_t of which have a caption."""

    images_B3HW: Tensor  # float32, normalised
    token_ids_TL: Tensor  # int64, the captions of the first B_t pictures
    labels_B: Tensor  # int64, index of the training identity
    num_captioned: int  # B_t

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies while it computes; DataLoader calls this by name."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(change(self.images_B3HW), change(self.token_ids_TL), change(self.labels_B), self.num_captioned)


@dataclass(frozen=True)
class Step:
    """What a step is made of: rows of the packed pictures (captioned ones first), rows of the token table, labels, and a seed."""

    picture_rows: np.ndarray
    caption_rows: np.ndarray
    labels: np.ndarray
    seed: int


class StepDataset(Dataset):
    """Item i is the whole batch of step i, augmented; it depends on the step alone, so any number of workers gives the same."""

    def __init__(self, packed: Path, tokens_CL: Tensor, steps: list[Step], pad: int, erase_probability: float) -> None:
        self.packed, self.tokens_CL, self.steps = Path(packed), tokens_CL, steps
        self.pad, self.erase_probability = pad, erase_probability
        self.pictures: ShardReader | None = None  # opened in the process that reads

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        if self.pictures is None:
            self.pictures = ShardReader(self.packed, "pictures")
        step = self.steps[index]
        images = augment(torch.from_numpy(self.pictures[step.picture_rows]), self.pad, self.erase_probability, step.seed)
        tokens = self.tokens_CL[torch.from_numpy(step.caption_rows)]
        return Batch(normalise(images), tokens, torch.from_numpy(step.labels), len(step.caption_rows))


def load_steps(dataset: StepDataset, num_workers: int, device: torch.device) -> Iterator[Batch]:
    """Batches of all steps in order, on the device. With workers, pictures are read and augmented beside the training process."""
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers, pin_memory=device.type == "cuda", collate_fn=_as_it_is)
    for batch in loader:
        yield batch.to(device)


def _as_it_is(batch: Batch) -> Batch:
    return batch
