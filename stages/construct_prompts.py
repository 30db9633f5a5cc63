"""Stage I: learn the inversion networks and the identity tokens from the cached features."""

import sys
from pathlib import Path

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.backbones.weights import load_backbone
from hpl.config import load_params
from hpl.files import kept_folder, output_folder, run_stage
from hpl.prompts.construct import construct_prompts
from hpl.prompts.features import FeatureCache
from hpl.prompts.parts import save_parts
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device


def main() -> None:
    features, backbone, prompts, curve = map(Path, sys.argv[1:])
    params = load_params()
    device = prepare_device(params.device, params.num_threads, params.seed)
    clip, _ = load_backbone(backbone)
    profile = params.active
    choices = params.prompt, profile.inversion, params.loss, profile.construct_prompts, params.seed
    key = work_key([features, backbone], *choices, str(device), params.num_threads)
    with Checkpoint(kept_folder("construct_prompts") / key, params.checkpoint_seconds) as checkpoint:
        tower = frozen_copy(TextTower(clip))
        parts, curves = construct_prompts(FeatureCache(features), tower, *choices, device, checkpoint)
        with output_folder(prompts) as folder:
            save_parts(folder, parts)
        curves.write(curve)


if __name__ == "__main__":
    run_stage(main)
