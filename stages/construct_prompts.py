"""Stage I: learn the inversion networks and the identity tokens from the cached features."""

import sys
from pathlib import Path

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.backbones.weights import load_backbone
from hpl.config import load_params
from hpl.files import kept_folder, output_folder, run_stage
from hpl.prompts.cache import FeatureCache
from hpl.prompts.construct import construct_prompts
from hpl.prompts.learned import save_prompts
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device


def main() -> None:
    features, backbone, prompts, curve = map(Path, sys.argv[1:])
    params = load_params()
    profile = params.active
    device = prepare_device(params.device, params.num_threads, params.seed)
    clip, _ = load_backbone(backbone)
    chosen = params.model_dump(include={"prompt", "loss", "seed", "num_threads"})
    key = work_key([features, backbone], chosen, profile.inversion, profile.construct_prompts, str(device))
    with Checkpoint(kept_folder("construct_prompts") / key, params.checkpoint_seconds) as checkpoint:
        learned, curves = construct_prompts(FeatureCache(features), frozen_copy(TextTower(clip)), params, device, checkpoint)
        with output_folder(prompts) as folder:
            save_prompts(folder, learned)
        curves.write(curve)


if __name__ == "__main__":
    run_stage(main)
