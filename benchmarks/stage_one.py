"""How much faster a stage I step is from the feature cache than with the frozen towers run each time, and what a picture takes.

    python benchmarks/stage_one.py --profile bundled --batch 128
    python benchmarks/stage_one.py --profile paper-cuhk-market --batch 16

Random weights at the profile's shapes (open_clip's configuration of the named model; nothing is downloaded), random pictures, and
captions of 25 words. Both sides do the same arithmetic after the towers, with the same prompts cut at their end; steps alternate,
and the ratio is of the medians. The cached side includes reading the cache from disk (page cache warm).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch

from hpl.backbones.encoding import normalise
from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, frozen_copy
from hpl.backbones.weights import build_clip, scratch_config
from hpl.batches.loading import TrainingData
from hpl.config import Params, load_params
from hpl.manifests.shards import ShardReader, ShardWriter
from hpl.prompts.cache import CachedBatch, FeatureCache, cache_features
from hpl.prompts.construct import construct_losses
from hpl.prompts.learned import LearnedPrompts
from hpl.prompts.template import PromptEncoder
from hpl.runtime.device import prepare_device

WORDS = (
    "a man in red jacket and blue jeans walks past the shop with his black bag while talking on the phone near some parked cars"
).split()


class Pictures:
    """Stands in for hpl.manifests.tables.Manifests: `count` captioned pictures of identities with four pictures each."""

    def __init__(self, count: int) -> None:
        rows = np.arange(count)
        self.images = pd.DataFrame({"image_id": rows, "pid": rows // 4 + 1, "role": "train", "pack_row": rows})
        sentences = [" ".join(np.random.default_rng(row).permutation(WORDS)) for row in rows]
        self.captions = pd.DataFrame({"image_id": rows, "caption": sentences, "role": "train"})


def clip_of(params: Params) -> torch.nn.Module:
    profile = params.active
    if profile.backbone.source == "scratch":
        return build_clip(scratch_config(profile.backbone, profile.input)).eval()
    config = open_clip.get_model_config(profile.backbone.model)
    config["vision_cfg"]["image_size"] = [profile.input.height, profile.input.width]
    return build_clip(config).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="bundled")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3, help="counted steps of each side, after one that is not")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    params = load_params().model_copy(update={"profile": args.profile})
    profile = params.active
    device = prepare_device(args.device, args.threads, 0)
    clip = clip_of(params)
    images = ImageTower(clip, **params.model.model_dump()).to(device).eval()
    texts = TextTower(clip).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Pictures(args.batch)
        shape = (args.batch, 3, profile.input.height, profile.input.width)
        packed, features = Path(folder) / "pictures", Path(folder) / "features"
        packed.mkdir(), features.mkdir()
        with ShardWriter(packed, "pictures", 4096) as writer:
            writer.append(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        cache_features(clip, TrainingData(pictures, packed), params, features, device)
        size = sum(file.stat().st_size for file in features.glob("image_tokens*"))
        size_text = sum(file.stat().st_size for file in features.glob("text_tokens*"))
        cache, reader = FeatureCache(features), ShardReader(packed, "pictures")
        tower = frozen_copy(texts)
        prompts = LearnedPrompts(params.prompt, profile.inversion, tower, list(range(1, args.batch // 4 + 2))).to(device)
        encoder = PromptEncoder(tower).to(device)
        optimizer = torch.optim.Adam([parameter for parameter in prompts.parameters() if parameter.requires_grad], lr=1e-5)
        rows, labels = np.arange(args.batch), torch.arange(args.batch, device=device) // 4
        tokens = tokenize(pictures.captions["caption"], profile.input.context_length).to(device)

        def from_cache() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            text, ends = cache.text_batch(rows)
            return cache.image_batch(rows).to(device), text.to(device), ends.to(device)

        @torch.no_grad()
        def from_towers() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return images(normalise(torch.from_numpy(reader[rows]).to(device))), *texts(tokens)

        seconds = {from_cache: [], from_towers: []}
        for step in range(args.steps + 1):
            for source, times in seconds.items():
                start = time.perf_counter()
                losses = construct_losses(prompts, encoder, CachedBatch(*source(), labels), params.loss)
                optimizer.zero_grad()
                sum(losses).backward()
                optimizer.step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if step:
                    times.append(time.perf_counter() - start)
    cached, towers = (statistics.median(times) for times in seconds.values())
    print(f"{args.profile} on {device}, {args.threads} threads, batch {args.batch}, {args.steps} steps")
    print(f"from the cache {cached:.3f} s a step, with the towers {towers:.3f} s a step: {towers / cached:.2f} times as fast")
    print(
        f"cache: {size / args.batch / 1024:.1f} KiB a picture, "
        f"{size_text / args.batch / 1024:.1f} KiB a caption of {len(WORDS)} words"
    )


if __name__ == "__main__":
    main()
