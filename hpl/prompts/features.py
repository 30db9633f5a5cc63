"""Cached features as stage I reads them, a batch at a time; hpl/prompts/cache.py says how they lie on disk."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hpl.manifests.shards import ShardReader


class FeatureCache:
    """F_v and F_t of the training pictures and captions, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        folder = Path(folder)
        self.pictures = pd.read_parquet(folder / "pictures.parquet")
        self.captions = pd.read_parquet(folder / "captions.parquet")
        self.image_tokens = ShardReader(folder, "image_tokens")
        self.text_tokens = ShardReader(folder, "text_tokens") if len(self.captions) else None
        order = self.captions["picture"].to_numpy()
        self._first = np.searchsorted(order, np.arange(len(self.pictures)), side="left")
        self._last = np.searchsorted(order, np.arange(len(self.pictures)), side="right")

    def image_batch(self, rows: np.ndarray) -> torch.Tensor:
        """F_v of some pictures: float32, B x (2+N) x D."""
        return torch.from_numpy(self.image_tokens[rows]).float()

    def text_batch(self, captions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """F_t of some captions, zero after end-of-text: float32, B_t x L x D, and the end positions, B_t."""
        starts = self.captions["start"].to_numpy()[captions]
        lengths = self.captions["length"].to_numpy()[captions]
        width = self.image_tokens.row_shape[-1]
        if not len(captions):
            return torch.zeros(0, 1, width), torch.zeros(0, dtype=torch.int64)
        flat = self.text_tokens[np.concatenate([np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])]
        out = torch.zeros(len(captions), int(lengths.max()), width)
        filled = torch.arange(out.shape[1])[None] < torch.from_numpy(lengths)[:, None]
        out[filled] = torch.from_numpy(flat).float()
        return out, torch.from_numpy(lengths - 1)

    def captions_of(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One random caption for each picture row, or -1 where a picture has none."""
        first, last = self._first[rows], self._last[rows]
        chosen = first + (generator.random(len(rows)) * (last - first)).astype(np.int64)
        return np.where(last > first, chosen, -1)
