"""Take CLIP weights or train a small CLIP; write a backbone that open_clip itself can load."""

import sys
from pathlib import Path

from hpl.backbones.weights import create_backbone, save_backbone
from hpl.batches.loading import TrainingData
from hpl.config import load_params
from hpl.files import kept_folder, output_folder, run_stage
from hpl.manifests.tables import Manifests
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.runtime.distributed import rank, run_processes
from hpl.training.pretrain import pretrain


def main() -> None:
    manifests, packed, backbone, curve = map(Path, sys.argv[1:])
    params = load_params()
    profile = params.active
    device = prepare_device(params.device, params.num_threads, params.seed)
    model, config, account = create_backbone(profile.backbone, profile.input)
    if not rank():
        print("backbone:", "\n  ".join(account.lines()), file=sys.stderr)
    given = [Path(profile.backbone.weights)] if profile.backbone.source == "open_clip" else []
    inputs = [manifests, packed, *(file for file in given if file.is_file())]
    chosen = params.model_dump(include={"seed", "num_threads", "num_processes"})
    key = work_key(inputs, profile.backbone, profile.pretrain, profile.input, chosen, str(device))
    with Checkpoint(kept_folder("pretrain") / key, params.checkpoint_seconds) as checkpoint:
        curves = pretrain(model, TrainingData(Manifests(manifests), packed), params, device, checkpoint)
        if rank():
            return  # the first process writes
        with output_folder(backbone) as folder:
            save_backbone(folder, model, config, account)
        curves.write(curve)


if __name__ == "__main__":
    run_stage(lambda: run_processes(main, load_params().num_processes))
