"""Stage II: train the towers with the joint losses."""

import sys
from filecmp import cmp
from pathlib import Path
from shutil import copytree

from hpl.backbones.towers import TextTower
from hpl.backbones.trained import TENSORS_FILE, save_trained
from hpl.backbones.weights import WEIGHTS_FILE, load_backbone
from hpl.batches.loading import TrainingData
from hpl.config import load_params
from hpl.evaluation.calibration import CALIBRATION_FOLDER
from hpl.files import kept_folder, output_folder, run_stage
from hpl.manifests.tables import Manifests
from hpl.prompts.learned import PROMPTS_FILE, load_prompts
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.runtime.distributed import rank, run_processes
from hpl.runtime.provenance import provenance
from hpl.training.train import train

# With num_processes, what dvc.yaml says this stage depends on.
DECLARED = {"seed", "device", "num_threads", "tasks", "model", "prompt", "loss"}


def main() -> None:
    manifests, packed, backbone, prompts, trained, curve = map(Path, sys.argv[1:])
    params = load_params()
    profile = params.active
    device = prepare_device(params.device, params.num_threads, params.seed)
    clip, config = load_backbone(backbone)
    learned = load_prompts(prompts, params.prompt, profile.inversion, TextTower(clip)) if params.prompt.enabled else None
    chosen = params.model_dump(include=DECLARED)
    sections = profile.model_dump(include={"train", "inversion", "input"})
    key = work_key([manifests, packed, backbone, prompts], chosen, sections, str(device), params.num_processes)
    with Checkpoint(kept_folder("train") / key, params.checkpoint_seconds) as checkpoint:
        data = TrainingData(Manifests(manifests), packed)
        model, curves, selection = train(clip, learned, data, params, device, checkpoint)
        if rank():
            return  # the first process writes
        files = {"images": manifests / "images.parquet", "captions": manifests / "captions.parquet"}
        files |= {"backbone": backbone / WEIGHTS_FILE, "prompts": prompts / PROMPTS_FILE}
        description = {"clip": config, "task_routing": params.model.task_routing, "selection": selection, **provenance(files)}
        description |= {"params": chosen, "train": profile.train.model_dump(), "input": profile.input.model_dump()}
        with output_folder(trained) as folder:
            save_trained(folder, model.images, model.texts, description, model.i2i_neck)
            _keep_calibration(trained, folder)
        curves.write(curve)


def _keep_calibration(before: Path, folder: Path) -> None:
    """Let what calibrate wrote for the very same tensors stay; that for others goes with the old folder."""
    old, new, calibration = before / TENSORS_FILE, folder / TENSORS_FILE, before / CALIBRATION_FOLDER
    if calibration.is_dir() and old.is_file() and cmp(old, new, shallow=False):
        copytree(calibration, folder / CALIBRATION_FOLDER)


if __name__ == "__main__":
    run_stage(lambda: run_processes(main, load_params().num_processes))
