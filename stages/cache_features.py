"""Run the frozen towers once over the training pictures and captions."""

import sys
from pathlib import Path

from hpl.backbones.weights import load_backbone
from hpl.batches.loading import TrainingData
from hpl.config import load_params
from hpl.files import kept_folder, output_folder, run_stage
from hpl.manifests.tables import Manifests
from hpl.prompts.cache import cache_features
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device


def main() -> None:
    manifests, packed, backbone, features = map(Path, sys.argv[1:])
    params = load_params()
    profile = params.active
    device = prepare_device(params.device, params.num_threads, params.seed)
    clip, _ = load_backbone(backbone)
    chosen = params.model_dump(include={"model", "seed", "num_threads"})
    key = work_key([manifests, packed, backbone], chosen, profile.cache_features, profile.input, str(device))
    with (
        Checkpoint(kept_folder("cache_features") / key, params.checkpoint_seconds) as checkpoint,
        output_folder(features) as folder,
    ):
        cache_features(clip, TrainingData(Manifests(manifests), packed), params, folder, device, checkpoint)


if __name__ == "__main__":
    run_stage(main)
