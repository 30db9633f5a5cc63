"""Features of the frozen towers, which the cache_features stage writes once and stage I reads a batch at a time.

Layout of the folder, all memory-mapped float16: `image_tokens-*.npy`, a row a picture, (2+N) x D; `text_tokens-*.npy`, a row a
*token*, D, because what follows end-of-text is never used; pictures.parquet (image_id, pid; its order is that of the rows) and
captions.parquet (picture row, start, length of its tokens), sorted.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from open_clip.model import CLIP
from torch import Tensor
from tqdm import tqdm

from hpl.backbones.encoding import normalise
from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, end_positions
from hpl.batches.loading import TrainingData
from hpl.config import Params
from hpl.files import HplError, parsing
from hpl.manifests.shards import ShardReader, ShardWriter
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint

_SPAN = ["picture", "start", "length"]  # columns of captions.parquet
_TOKENS_A_PICTURE = 64  # text tokens that a shard may hold for each picture it may hold


@torch.inference_mode()
def cache_features(
    clip: CLIP, data: TrainingData, params: Params, folder: Path, device: torch.device, checkpoint: Checkpoint = NOTHING_KEPT
) -> None:
    """Write F_v of every training picture, not augmented, and F_t of every caption of these, by the towers as stage II starts."""
    options, size = params.active.cache_features, params.active.input
    pictures, captions = data.pictures("train").reset_index(drop=True), data.captions("train")
    if pictures.empty:
        raise HplError("cache_features: no picture is left for training; see data/manifests/audit.json")
    images = ImageTower(clip, **params.model.model_dump(), seed=params.seed).to(device).eval()
    texts = TextTower(clip).to(device).eval()
    reader = data.reader(pictures, size)

    def encode_pictures(start: int) -> np.ndarray:
        image_ids = pictures["image_id"].to_numpy()[start : start + options.batch_size]
        return _half(images(normalise(reader.read(image_ids).to(device))))

    def encode_captions(tokens_BL: Tensor) -> np.ndarray:
        features_BLD, ends_B = texts(tokens_BL.to(device))
        return _half(features_BLD[torch.arange(features_BLD.shape[1], device=device)[None] <= ends_B[:, None]])

    with ShardWriter(folder, "image_tokens", options.shard_rows) as writer:
        for start in tqdm(range(0, len(pictures), options.batch_size), desc="cache pictures", unit="batches"):
            writer.append(checkpoint.block(f"pictures-{start}", partial(encode_pictures, start)))
    counted: list[int] = []
    with ShardWriter(folder, "text_tokens", options.shard_rows * _TOKENS_A_PICTURE) as writer:
        for start in tqdm(range(0, len(captions), options.batch_size), desc="cache captions", unit="batches"):
            tokens_BL = tokenize(captions["caption"].iloc[start : start + options.batch_size], size.context_length)
            writer.append(checkpoint.block(f"captions-{start}", partial(encode_captions, tokens_BL)))
            counted.extend((end_positions(tokens_BL) + 1).tolist())
    lengths = np.array(counted, dtype=np.int64)
    row_of = pd.Series(pictures.index, index=pictures["image_id"])
    table = {"picture": row_of[captions["image_id"]].to_numpy(), "start": np.cumsum(lengths) - lengths, "length": lengths}
    pd.DataFrame(table).to_parquet(folder / "captions.parquet", index=False)
    pictures[["image_id", "pid"]].to_parquet(folder / "pictures.parquet", index=False)


def _half(features: Tensor) -> np.ndarray:
    """Round to float16; HplError where that would overflow."""
    half = features.to(torch.float16)
    if not torch.isfinite(half).all():
        raise HplError("cache_features: a feature is not finite in half precision; expected CLIP's, with values under 65504")
    return half.cpu().numpy()


@dataclass(frozen=True)
class CachedBatch:
    """Features of B pictures, the first T of which are captioned, and of one caption of each of these."""

    image_tokens_BXD: Tensor  # F_v
    text_tokens_TLD: Tensor  # F_t, zero after end-of-text
    ends_T: Tensor  # int64, positions of end-of-text
    labels_B: Tensor  # int64, index of the training identity


class FeatureCache:
    """F_v and F_t of the training pictures and captions, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        folder = Path(folder)
        with parsing(folder, "delete it and run the cache_features stage again"):
            self.pictures = pd.read_parquet(folder / "pictures.parquet").astype({"image_id": "int64", "pid": "int64"})
            self.captions = pd.read_parquet(folder / "captions.parquet").astype(dict.fromkeys(_SPAN, "int64"))
            self.image_tokens = ShardReader(folder, "image_tokens")
            self.text_tokens = ShardReader(folder, "text_tokens") if len(self.captions) else None
            self._check_sizes()
        self.pids, self.labels = np.unique(self.pictures["pid"], return_inverse=True)
        order = self.captions["picture"].to_numpy()
        self._first = np.searchsorted(order, np.arange(len(self.pictures)), side="left")
        self._last = np.searchsorted(order, np.arange(len(self.pictures)), side="right")

    def _check_sizes(self) -> None:
        """Raise ValueError unless tables and arrays belong together."""
        picture, start, length = (self.captions[name].to_numpy() for name in _SPAN)
        shapes = [self.image_tokens.row_shape, (len(self.image_tokens),)]
        if len(shapes[0]) != 2 or shapes[0][0] < 2 or len(self.image_tokens) != len(self.pictures):
            raise ValueError(f"image_tokens of {shapes}, {len(self.pictures)} pictures")
        num_tokens = len(self.text_tokens) if self.text_tokens else 0
        if self.text_tokens and self.text_tokens.row_shape != shapes[0][1:]:
            raise ValueError(f"text_tokens of {self.text_tokens.row_shape}")
        if not np.array_equal(start, np.cumsum(length) - length) or (length < 1).any() or length.sum() != num_tokens:
            raise ValueError(f"captions.parquet is not of {num_tokens} tokens")
        if (np.diff(picture) < 0).any() or not np.isin(picture, np.arange(len(self.pictures))).all():
            raise ValueError("captions.parquet is not of these pictures")

    def batch(self, rows: np.ndarray, generator: np.random.Generator, device: torch.device) -> CachedBatch:
        """Read some pictures, captioned ones first, each with a random one of its captions, to a device."""
        captions = self.captions_of(rows, generator)
        rows, captions = rows[np.argsort(captions < 0, kind="stable")], captions[captions >= 0]
        tensors = self.image_batch(rows), *self.text_batch(captions), torch.from_numpy(self.labels[rows])
        return CachedBatch(*(tensor.to(device) for tensor in tensors))

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """Read F_v of some pictures: float32, B x (2+N) x D."""
        return torch.from_numpy(self.image_tokens[rows]).float()

    def text_batch(self, captions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Read F_t of some captions, zero after end-of-text: float32, B_t x L x D, and the end positions, B_t."""
        starts = self.captions["start"].to_numpy()[captions]
        lengths = self.captions["length"].to_numpy()[captions]
        width = self.image_tokens.row_shape[-1]
        if self.text_tokens is None or not len(captions):
            return torch.zeros(0, 1, width), torch.zeros(0, dtype=torch.int64)
        flat = self.text_tokens[np.concatenate([np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])]
        out = torch.zeros(len(captions), int(lengths.max()), width)
        filled = torch.arange(out.shape[1])[None] < torch.from_numpy(lengths)[:, None]
        out[filled] = torch.from_numpy(flat).float()
        return out, torch.from_numpy(lengths - 1)

    def captions_of(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw one caption for each picture row, or -1 where a picture has none."""
        first, last = self._first[rows], self._last[rows]
        chosen = first + (generator.random(len(rows)) * (last - first)).astype(np.int64)
        return np.where(last > first, chosen, -1)
