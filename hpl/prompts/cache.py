"""The cache_features stage: the frozen towers run once over the training pictures and captions.

Layout of the folder, all memory-mapped float16: `image_tokens-*.npy`, a row a picture, (2+N) x D; `text_tokens-*.npy`, a row a *token*,
D, because what follows end-of-text is never used; pictures.parquet (image_id, pid; its order is that of the rows) and captions.parquet (picture row, start,
length of its tokens), sorted.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, end_positions
from hpl.batches.loading import TrainingPictures
from hpl.batches.transforms import normalise
from hpl.config import Cache, Input
from hpl.files import HplError
from hpl.manifests.shards import ShardWriter
from hpl.manifests.tables import Manifests
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint

TOKENS_A_PICTURE = 64  # text tokens that a shard may hold for each picture it may hold


@torch.inference_mode()
def cache_features(
    images: ImageTower,
    texts: TextTower,
    manifests: Manifests,
    packed: Path,
    options: Cache,
    size: Input,
    folder: Path,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> None:
    """Write F_v of every training picture, not augmented, and F_t of every caption of these."""
    pictures = manifests.images[manifests.images["role"] == "train"].reset_index(drop=True)
    if pictures.empty:
        raise HplError("cache_features: no picture is left for training; see data/manifests/audit.json")
    captions = manifests.captions[manifests.captions["role"] == "train"]
    images.to(device).eval(), texts.to(device).eval()
    reader = TrainingPictures(manifests, packed, pictures, size)

    def encode_pictures(start: int) -> np.ndarray:
        image_ids = pictures["image_id"].to_numpy()[start : start + options.batch_size]
        return _half(images(normalise(reader.read(image_ids).to(device))))

    def encode_captions(tokens_BL: torch.Tensor) -> np.ndarray:
        features_BLD, ends_B = texts(tokens_BL.to(device))
        return _half(features_BLD[torch.arange(features_BLD.shape[1], device=device)[None] <= ends_B[:, None]])

    with ShardWriter(folder, "image_tokens", options.shard_rows) as writer:
        for start in tqdm(range(0, len(pictures), options.batch_size), desc="cache pictures", unit="batches"):
            writer.append(checkpoint.block(f"pictures-{start}", partial(encode_pictures, start)))
    lengths = []
    with ShardWriter(folder, "text_tokens", options.shard_rows * TOKENS_A_PICTURE) as writer:
        for start in tqdm(range(0, len(captions), options.batch_size), desc="cache captions", unit="batches"):
            tokens_BL = tokenize(captions["caption"].iloc[start : start + options.batch_size], size.context_length)
            writer.append(checkpoint.block(f"captions-{start}", partial(encode_captions, tokens_BL)))
            lengths.extend((end_positions(tokens_BL) + 1).tolist())
    lengths = np.array(lengths, dtype=np.int64)
    row_of = pd.Series(pictures.index, index=pictures["image_id"])
    table = pd.DataFrame(
        {"picture": row_of[captions["image_id"]].to_numpy(), "start": np.cumsum(lengths) - lengths, "length": lengths}
    )
    table.to_parquet(folder / "captions.parquet", index=False)
    pictures[["image_id", "pid"]].to_parquet(folder / "pictures.parquet", index=False)


def _half(features: torch.Tensor) -> np.ndarray:
    """float16, or HplError where that would overflow."""
    half = features.to(torch.float16)
    if not torch.isfinite(half).all():
        raise HplError(
            "cache_features: a feature is not finite in half precision; expected CLIP features, whose values stay under 65504"
        )
    return half.cpu().numpy()
