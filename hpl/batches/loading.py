"""Steps of training as tensors: pictures from packed arrays or from files, whole batches at a time, in worker processes if asked.

Packed is the faster, so what is trained on is packed unless preprocess.pack_pictures is false: one core makes ready 4,100
pictures of 384 x 128 a second, 1,000 from files of 64 x 128, and 480 by Pillow and torchvision (benchmarks/loading.py).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from hpl.backbones.encoding import normalise
from hpl.backbones.tokenizer import tokenize
from hpl.batches.transforms import augment
from hpl.config import Input
from hpl.files import HplError
from hpl.manifests.shards import ShardReader
from hpl.manifests.tables import Manifests
from hpl.pictures import read_pictures
from hpl.runtime.distributed import rank, share, share_of_rows, world_size
from hpl.workers import Duty, in_order

_BLOCK = 65536  # paths made at a time
_READS = Duty("reads training pictures", "loader_workers")


class TrainingPictures:
    """Pictures by image_id at the training size: from the packed arrays where they have a `pack_row`, else from their files.

    Holds a few bytes and, where it is not packed, the path of each picture, so that worker processes get it cheaply.
    """

    def __init__(self, manifests: Manifests, packed: Path, images: pd.DataFrame, size: Input) -> None:
        """`images` are the rows of manifests.images that may be asked for; `packed` is opened by the process that reads."""
        self.packed, self.height, self.width = Path(packed), size.height, size.width
        images = images.iloc[np.argsort(images["image_id"].to_numpy())]
        self.image_ids = images["image_id"].to_numpy()
        self.pack_rows = images["pack_row"].to_numpy()
        loose = images[self.pack_rows < 0]
        self.path_rows = np.cumsum(self.pack_rows < 0) - 1
        blocks = [manifests.files(loose.iloc[start : start + _BLOCK]) for start in range(0, len(loose), _BLOCK)]
        self.paths = pa.chunked_array([[str(file) for file in block] for block in blocks], pa.large_string())
        self.reader: ShardReader | None = None

    def read(self, image_ids: np.ndarray) -> Tensor:
        """uint8, N x 3 x height x width. KeyError for an image_id that is not in `images`; HplError names a bad file."""
        rows = np.searchsorted(self.image_ids, image_ids)
        if not np.array_equal(self.image_ids.take(rows, mode="clip"), image_ids):
            raise KeyError("an image_id is not among the pictures of this reader")
        pack_rows = self.pack_rows[rows]
        packed = pack_rows >= 0
        if not packed.any():
            return self._read_files(rows)
        if self.reader is None:
            self.reader = ShardReader(self.packed, "pictures")
            wanted, least = (3, self.height, self.width), int(self.pack_rows.max()) + 1
            if self.reader.row_shape != wanted or len(self.reader) < least:
                raise HplError(
                    f"{self.packed}: {len(self.reader)} pictures of shape {self.reader.row_shape}; expected {least} or more of "
                    f"{wanted}: delete it and run the preprocess stage again"
                )
        if packed.all():
            return torch.from_numpy(self.reader[pack_rows])
        pictures = torch.empty(len(rows), 3, self.height, self.width, dtype=torch.uint8)
        pictures[torch.from_numpy(packed)] = torch.from_numpy(self.reader[pack_rows[packed]])
        pictures[torch.from_numpy(~packed)] = self._read_files(rows[~packed])
        return pictures

    def _read_files(self, rows: np.ndarray) -> Tensor:
        files = self.paths.take(self.path_rows[rows]).to_pylist()
        return torch.from_numpy(read_pictures(files, self.height, self.width))

    def __getstate__(self) -> dict:  # a copy for another process opens the arrays itself
        return {**self.__dict__, "reader": None}


@dataclass(frozen=True)
class TrainingData:
    """The tables and the packed pictures that preprocess wrote, as training reads them: by role, "train" or "pretrain"."""

    manifests: Manifests
    packed: Path

    def pictures(self, role: str) -> pd.DataFrame:
        """Select the pictures of a role."""
        return self.manifests.images[self.manifests.images["role"] == role]

    def captions(self, role: str) -> pd.DataFrame:
        """Select the captions of the pictures of a role."""
        return self.manifests.captions[self.manifests.captions["role"] == role]

    def reader(self, pictures: pd.DataFrame, size: Input) -> TrainingPictures:
        """Open these pictures at the training size."""
        return TrainingPictures(self.manifests, self.packed, pictures, size)


@dataclass(frozen=True)
class Batch:
    """B pictures, the first B_t of which have a caption.

    Of several processes each has its share of the pictures, captioned ones first, and of the captions; labels and B_t are of the
    whole.
    """

    images_B3HW: Tensor  # float32, normalised; uint8 as a worker hands it over, a quarter of the bytes
    token_ids_TL: Tensor  # int64, the captions of the captioned pictures
    labels_B: Tensor  # int64, index of the training identity
    num_captioned: int  # B_t

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device."""
        images, tokens, labels = self.images_B3HW, self.token_ids_TL, self.labels_B
        return Batch(images.to(device), tokens.to(device), labels.to(device), self.num_captioned)


@dataclass(frozen=True)
class Step:
    """What a step is made of: pictures (captioned ones first), rows of the captions, labels, and a seed."""

    image_ids: np.ndarray
    caption_rows: np.ndarray
    labels: np.ndarray
    seed: int

    @property
    def counts(self) -> tuple[int, int]:
        """Number of captioned pictures and of the others."""
        return len(self.caption_rows), len(self.image_ids) - len(self.caption_rows)


class StepDataset:
    """Item i is the batch of step i, augmented, its captions tokenised: all of it, or the share of this one of several processes.

    It depends on the step alone, so any number of workers gives the same, and the shares of all processes are the batch of one.
    """

    def __init__(
        self,
        pictures: TrainingPictures,
        captions: pd.Series,
        context_length: int,
        steps: list[Step],
        pad: int,
        erase_probability: float,
    ) -> None:
        """Take the column of sentences that Step.caption_rows count. HplError if a process would be left without a row."""
        self.pictures, self.captions, self.context_length = pictures, captions, context_length
        self.steps, self.pad, self.erase_probability = steps, pad, erase_probability
        self.process = rank(), world_size()  # read here: a loader's worker belongs to no process group
        fewest = min((count for step in steps for count in step.counts if count), default=world_size())
        if fewest < world_size():
            raise HplError(
                f"num_processes = {world_size()}, but a step has only {fewest} captions, or pictures without one; "
                "expected at least as many"
            )

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        step = self.steps[index]
        rows = share_of_rows(step.counts, *self.process)
        pictures = self.pictures.read(step.image_ids[rows.numpy()])
        images = augment(pictures, self.pad, self.erase_probability, step.seed, rows, len(step.image_ids))
        captions = step.caption_rows[share(len(step.caption_rows), *self.process)]
        tokens = tokenize(self.captions.iloc[captions], self.context_length)
        return Batch(images, tokens, torch.from_numpy(step.labels), len(step.caption_rows))


def load_steps(dataset: StepDataset, num_workers: int, device: torch.device) -> Iterator[Batch]:
    """Batches of all steps in order, on the device, normalised there. Workers read and augment beside the training process."""
    for batch in _by_workers(dataset, num_workers) if num_workers else map(dataset.__getitem__, range(len(dataset))):
        batch = batch.to(device)
        yield replace(batch, images_B3HW=normalise(batch.images_B3HW))


def _by_workers(dataset: StepDataset, num_workers: int) -> Iterator[Batch]:
    """Receive one batch while the one before is trained on."""
    number = min(num_workers, len(dataset))
    batches = in_order(partial(_arrays, dataset), range(len(dataset)), number, _READS)
    try:
        batch = next(batches, None)  # here, so that this thread starts the workers
        with ThreadPoolExecutor(1) as thread:
            while batch is not None:
                coming = thread.submit(next, batches, None)
                images, tokens, labels, num_captioned = batch
                yield Batch(torch.from_numpy(images), torch.from_numpy(tokens), torch.from_numpy(labels), num_captioned)
                while not wait([coming], 1).done:
                    pass  # who watches this process sees that it waits for another
                batch = coming.result()
    finally:
        batches.close()  # type: ignore[attr-defined]


def _arrays(dataset: StepDataset, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    torch.set_num_threads(1)  # threads do not survive a fork
    batch = dataset[index]
    return batch.images_B3HW.numpy(), batch.token_ids_TL.numpy(), batch.labels_B.numpy(), batch.num_captioned
