"""One cell of an ablation: stages I and II and the evaluation, with the parameters of one row and one seed, on a common backbone."""

import fcntl
import shutil
from pathlib import Path

import torch

from hpl.backbones.towers import ImageTower, TextTower, frozen_copy
from hpl.backbones.weights import load_backbone
from hpl.config import Params
from hpl.files import output_folder
from hpl.manifests.tables import Manifests
from hpl.prompts.cache import cache_features
from hpl.prompts.construct import construct_prompts
from hpl.prompts.features import FeatureCache
from hpl.prompts.parts import load_parts, save_parts
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import evaluate_towers
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.training.train import train

USED = {"seed", "device", "num_threads", "tasks", "model", "prompt", "loss"}  # parameters of a cell, beside its profile


def run_cell(name: str, params: Params, manifests: Path, packed: Path, backbone: Path, kept: Path) -> dict:
    """What the stages cache_features to evaluate do, in one process: with the same parameters, the same figures to the last digit.

    Args:
        name: of the cell; cells of equal parameters may run side by side.
        params: those of the cell (hpl.config.cell_params).
        manifests, packed, backbone: as the stages preprocess and pretrain write them.
        kept: folder outside all outputs, for state that a killed run goes on from and for what cells share.

    Returns:
        `metrics` of both tasks as reports/metrics.json has them, `steps`, the optimiser steps of stage II, and `selection`, the epoch
        that the model is of.

    Raises:
        HplError: a loss is not finite; the same cell is running in another process.
    """
    profile, tables = params.active, Manifests(manifests)
    prompts = share_prompts(params, manifests, packed, backbone, kept) if params.prompt.enabled else None
    key = work_key([manifests, packed, backbone], params.model_dump(include=USED), profile)
    with Checkpoint(kept / "cells" / f"{name}-{key}", params.checkpoint_seconds) as checkpoint:
        device = _prepare(params)
        clip, _ = load_backbone(backbone)
        parts = load_parts(prompts, params.prompt, profile.inversion, TextTower(clip)) if prompts else None
        model, curves, selection = train(clip, parts, tables, packed, params, device, checkpoint)
        extractor = Extractor.of(model.images, model.texts, profile, device, checkpoint.within("trained"))
        metrics = evaluate_towers(extractor, tables, profile.evaluate)
    return {"metrics": metrics, "steps": curves.steps, "selection": selection}


def share_prompts(params: Params, manifests: Path, packed: Path, backbone: Path, kept: Path) -> Path:
    """Folder of the prompt parts of stage I, made by the first cell that needs them; cells with other parameters before stage II have others.

    A second process that wants the same waits for the first. What is kept stays until the user deletes it, and changes no output.
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
            device = _prepare(params)
            clip, _ = load_backbone(backbone)
            images = ImageTower(clip, **params.model.model_dump(), seed=params.seed)
            settings = Manifests(manifests), packed, profile.cache_features, profile.input
            with Checkpoint(folder / "cache_features", params.checkpoint_seconds) as checkpoint, output_folder(features) as out:
                cache_features(images, TextTower(clip), *settings, out, device, checkpoint)
        with Checkpoint(folder / "construct_prompts", params.checkpoint_seconds) as checkpoint:
            device = _prepare(params)
            clip, _ = load_backbone(backbone)
            tower = frozen_copy(TextTower(clip))
            choices = params.prompt, profile.inversion, loss, profile.construct_prompts, params.seed
            parts, _ = construct_prompts(FeatureCache(features), tower, *choices, device, checkpoint)
            with output_folder(prompts) as out:
                save_parts(out, parts)
        shutil.rmtree(features)
    return prompts


def _prepare(params: Params) -> torch.device:
    """The device, with torch seeded as at the start of a stage."""
    return prepare_device(params.device, params.num_threads, params.seed)
