"""One cell of an ablation: stages I and II and the evaluation with the parameters of a row and a seed, on a common backbone."""

import fcntl
import shutil
from pathlib import Path

import torch
from open_clip.model import CLIP

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.backbones.trained import neck_arrays
from hpl.backbones.weights import load_backbone
from hpl.batches.loading import TrainingData
from hpl.config import Params
from hpl.files import output_folder
from hpl.manifests.tables import Manifests
from hpl.prompts.cache import FeatureCache, cache_features
from hpl.prompts.construct import construct_prompts
from hpl.prompts.learned import load_prompts, save_prompts
from hpl.retrieval.checks import refuse, training_faults
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import evaluate_towers
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.training.train import train

_USED = {"seed", "device", "num_threads", "tasks", "model", "prompt", "loss"}  # parameters of a cell, beside its profile


def run_cell(name: str, params: Params, manifests: Path, packed: Path, backbone: Path, kept: Path) -> dict:
    """Run the stages cache_features to evaluate in one process: the same parameters give the same figures to the last digit.

    Args:
        name: of the cell; cells of equal parameters may run side by side.
        params: those of the cell (hpl.config.cell_params).
        manifests, packed, backbone: as the stages preprocess and pretrain write them.
        kept: folder outside all outputs, for state that a killed run goes on from and for what cells share.

    Returns:
        `metrics` of both tasks as reports/metrics.json has them, `steps`, the optimiser steps of stage II, and `selection`, the
        epoch that the model is of.

    Raises:
        HplError: a loss is not finite; the same cell is running in another process.
    """
    profile, data = params.active, TrainingData(Manifests(manifests), packed)
    refuse(training_faults(params, data.manifests))
    prompts = share_prompts(params, manifests, packed, backbone, kept) if params.prompt.enabled else None
    key = work_key([manifests, packed, backbone], params.model_dump(include=_USED), profile)
    with Checkpoint(kept / "cells" / f"{name}-{key}", params.checkpoint_seconds) as checkpoint:
        device, clip = _start(params, backbone)
        learned = load_prompts(prompts, params.prompt, profile.inversion, TextTower(clip)) if prompts else None
        model, curves, selection = train(clip, learned, data, params, device, checkpoint)
        extractor = Extractor.of(model.images, model.texts, profile, device, checkpoint.within("trained"))
        metrics = evaluate_towers(extractor, data.manifests, profile.evaluate, neck_arrays(model.i2i_neck))
    return {"metrics": metrics, "steps": curves.steps, "selection": selection}


def share_prompts(params: Params, manifests: Path, packed: Path, backbone: Path, kept: Path) -> Path:
    """Find the prompts of stage I, made by the first cell that needs them; cells that differ before stage II have others.

    A second process that wants the same waits for the first. What is kept stays until the user deletes it, and changes no output.
    Returns the folder.
    """
    profile, loss = params.active, params.loss
    key = work_key(
        [manifests, packed, backbone],
        params.model_dump(include={"seed", "device", "num_threads", "model", "prompt"}),
        [loss.prompt_temperature, loss.normalize_features],
        profile.model_dump(include={"input", "cache_features", "inversion", "construct_prompts"}),
    )
    folder = kept / "prompts" / key
    features, prompts = folder / "features", folder / "prompts"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if prompts.is_dir():
            return prompts
        if not features.is_dir():
            device, clip = _start(params, backbone)
            data = TrainingData(Manifests(manifests), packed)
            with Checkpoint(folder / "cache_features", params.checkpoint_seconds) as checkpoint, output_folder(features) as out:
                cache_features(clip, data, params, out, device, checkpoint)
        with Checkpoint(folder / "construct_prompts", params.checkpoint_seconds) as checkpoint:
            device, clip = _start(params, backbone)
            tower = frozen_copy(TextTower(clip))
            learned, _ = construct_prompts(FeatureCache(features), tower, params, device, checkpoint)
            with output_folder(prompts) as out:
                save_prompts(out, learned)
        shutil.rmtree(features)
    return prompts


def _start(params: Params, backbone: Path) -> tuple[torch.device, CLIP]:
    """Prepare the device, seed torch and read the backbone, as at the start of a stage."""
    device = prepare_device(params.device, params.num_threads, params.seed)
    return device, load_backbone(backbone)[0]
