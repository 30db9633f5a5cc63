"""Run the frozen towers once over the training pictures and captions."""

import sys
from pathlib import Path

from hpl.backbones.device import prepare_device
from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.weights import load_backbone
from hpl.config import load_params
from hpl.files import output_folder, run_stage
from hpl.manifests.tables import Manifests
from hpl.prompts.cache import cache_features


def main() -> None:
    manifests, packed, backbone, features = map(Path, sys.argv[1:])
    params = load_params()
    device = prepare_device(params.device, params.num_threads, params.seed)
    clip, _ = load_backbone(backbone)
    images = ImageTower(clip, **params.model.model_dump(), seed=params.seed)
    with output_folder(features) as folder:
        cache_features(
            images,
            TextTower(clip),
            Manifests(manifests),
            packed,
            params.active.cache_features,
            params.active.input,
            folder,
            device,
        )


if __name__ == "__main__":
    run_stage(main)
