"""Pictures and captions -> features, for retrieval: in batches, without gradients.

Several processes share the batches, not the rows within them, so that features have the same bits for any number of processes;
each of them gets all features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hpl.backbones.encoding import encode_pixels, encode_sentences
from hpl.backbones.towers import ImageTower, TextTower
from hpl.config import Input, Profile
from hpl.pictures import read_pictures
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.runtime.distributed import gather_rows, rank, share, world_size


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Both towers of a model, and how pictures and captions go through them.

    Attributes:
        batch_size: pictures or captions a forward pass.
        flip: encode the mirror image of each picture too, and take the mean of both.
        checkpoint: keeps the features of each batch.
    """

    images: ImageTower
    texts: TextTower
    size: Input
    batch_size: int
    device: torch.device
    flip: bool = False
    checkpoint: Checkpoint = NOTHING_KEPT

    @classmethod
    def of(
        cls, images: ImageTower, texts: TextTower, profile: Profile, device: torch.device, checkpoint: Checkpoint
    ) -> "Extractor":
        """Make the extractor of a profile's evaluation."""
        options = profile.evaluate
        plain = cls(images=images, texts=texts, size=profile.input, batch_size=options.batch_size, device=device)
        return replace(plain, flip=options.flip, checkpoint=checkpoint)

    def named(self, name: str) -> "Extractor":
        """Return the same extractor, whose checkpoint keeps what it computes under `name`."""
        return replace(self, checkpoint=self.checkpoint.within(name))

    @torch.inference_mode()
    def pictures(self, files: list[Path]) -> tuple[Tensor, Tensor]:
        """Read picture files and encode them. Returns (v_t2i, v_i2i), float32, n x D each, on the CPU, not normalised."""
        tower = self.images.to(self.device).eval()

        def encode(start: int) -> np.ndarray:
            pixels = read_pictures(files[start : start + self.batch_size], self.size.height, self.size.width)
            return encode_pixels(tower, pixels, self.device, self.flip)

        both = self._in_batches(encode, len(files), (2, tower.visual.proj.shape[1]), "pictures")
        return both[:, 0].contiguous(), both[:, 1].contiguous()

    @torch.inference_mode()
    def captions(self, captions: Sequence[str]) -> Tensor:
        """Encode captions. Returns t_eos, float32, n x D, on the CPU, not normalised."""
        tower = self.texts.to(self.device).eval()

        def encode(start: int) -> np.ndarray:
            part = captions[start : start + self.batch_size]
            return encode_sentences(tower, part, self.size.context_length, self.device)

        return self._in_batches(encode, len(captions), tower.text_projection.shape[1:], "captions")

    def _in_batches(self, encode: Callable[[int], np.ndarray], count: int, shape: Sequence[int], what: str) -> Tensor:
        starts = range(0, count, self.batch_size)
        shares = [starts[share(len(starts), number, world_size())] for number in range(world_size())]
        counts = [sum(min(self.batch_size, count - start) for start in each) for each in shares]
        rows = [torch.zeros(0, *shape)]
        with tqdm(total=counts[rank()], desc=f"encode {what}", unit=what, disable=rank() > 0) as progress:
            for start in shares[rank()]:
                kept = self.checkpoint.block(f"{what}-{start}", partial(encode, start))
                rows.append(torch.from_numpy(kept))
                progress.update(len(rows[-1]))
        return gather_rows(torch.cat(rows), counts)
