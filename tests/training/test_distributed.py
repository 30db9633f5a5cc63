"""Two gloo processes give what one gives: losses, gradients, ten steps, features, figures. And a run ends when one of them does."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP

from hpl.backbones.distributed import (
    average_gradients,
    gather_rows,
    gather_shares,
    rank,
    run_processes,
    share,
    share_of_parts,
    world_size,
)
from hpl.backbones.towers import ImageTower, TextTower, frozen_copy
from hpl.backbones.weights import build_clip
from hpl.batches.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.batches.extract import extract_image_features, extract_text_features
from hpl.batches.loading import Batch, Step, StepDataset, TrainingPictures
from hpl.batches.retrieval import evaluate_towers
from hpl.batches.text import tokenize
from hpl.batches.transforms import augment
from hpl.config import Evaluate, Inversion, load_params
from hpl.files import HplError
from hpl.manifests.tables import Manifests
from hpl.prompts.parts import PromptParts
from hpl.training.model import HPL, LOSSES
from hpl.training.pretrain import pretrain
from hpl.training.train import train
from tests.conftest import TINY, picture, save
from tests.imports import ROOT
from tests.manifests.test_build import build
from tests.toy import PIDS, SIZE, Tables

PARAMS = load_params(ROOT / "params.yaml")
CPU, BOTH = torch.device("cpu"), ["t2i", "i2i"]
STEPS = 10
NUM_CAPTIONED, NUM_PICTURES = 5, 7  # odd, so that two processes have unequal shares
VARIANTS = {  # prompts, task routing, tasks, changes of `loss`
    "all": (True, True, BOTH, {}),
    "i2i batch": (True, True, BOTH, {"i2i_batch": "i2i"}),
    "text-guided": (True, True, BOTH, {"vision_guided": False, "prompt_reg": 0.0}),
    "vision-guided": (True, True, BOTH, {"text_guided": False, "prompt_reg": 0.0}),
    "CMPR": (True, True, BOTH, {"instance_align": 0.0}),
    "plain features": (True, True, BOTH, {"normalize_features": False}),
    "TRT": (False, True, BOTH, {}),
    "baseline": (False, False, BOTH, {}),
    "i2i": (True, True, ["i2i"], {}),
    "t2i": (True, True, ["t2i"], {}),
}


class Stopped(Exception):
    pass


class StoppedAfter(Checkpoint):
    """Stops every process after so many steps."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, 0)
        self.steps_left = steps

    def save(self, *place: int, **parts: object) -> None:
        super().save(*place, **parts)
        self.steps_left -= 1
        if not self.steps_left:
            raise Stopped


def fresh_clip() -> CLIP:
    torch.manual_seed(0)
    model = build_clip(TINY).eval()
    with torch.no_grad():
        model.text_projection.normal_(std=24**-0.5)
    return model


def fresh_parts(clip: CLIP) -> PromptParts:
    torch.manual_seed(0)
    parts = PromptParts(PARAMS.prompt, Inversion(layers=1, heads=2), frozen_copy(TextTower(clip)), PIDS)
    parts.identity_prompts.normal_()
    return parts


def toy(world: Path) -> tuple[Tables, Path]:
    """The toy's tables and its packed pictures, which each process writes for itself."""
    folder = world / f"pictures of {rank()} of {world_size()}"
    folder.mkdir(exist_ok=True)
    return Tables(folder), folder


def losses_and_gradients(prompts: bool, task_routing: bool, tasks: list[str], changes: dict) -> dict:
    """Of one batch, of which each process gets its share."""
    clip = fresh_clip()
    model = PARAMS.model.model_copy(update={"task_routing": task_routing})
    hpl = HPL(clip, model, len(PIDS), fresh_parts(clip) if prompts else None, seed=0).train()
    counts = (NUM_CAPTIONED if "t2i" in tasks else 0), (NUM_PICTURES if "i2i" in tasks else 0)
    images = torch.randn(sum(counts), 3, 24, 12, generator=torch.Generator().manual_seed(1))
    captions = ["A man in red.", "A woman walks past the blue shop.", "A child.", "A man.", "A girl with two bags."][: counts[0]]
    labels = torch.tensor([0, 1, 0, 2, 3, 2, 2, 3, 3, 4, 0, 4])[: sum(counts)]
    own, own_captions = share_of_parts(counts, rank(), world_size()), share(counts[0], rank(), world_size())
    losses = hpl(
        Batch(images[own], tokenize(captions, 32)[own_captions], labels, counts[0]), PARAMS.loss.model_copy(update=changes), tasks
    )
    sum(losses.values()).backward()
    average_gradients(hpl.parameters())
    gradients = {name: parameter.grad for name, parameter in hpl.named_parameters() if parameter.grad is not None}
    means = {"running mean": hpl.i2i_neck.running_mean, "running variance": hpl.i2i_neck.running_var}
    return {"losses": {name: loss.detach() for name, loss in losses.items()}, "gradients": gradients | means}


def pretrained(world: Path) -> dict:
    tables, packed = toy(world)
    tables.images["role"] = tables.captions["role"] = "pretrain"
    changes = {
        "epochs": STEPS,
        "batch_size": 5,
        "loader_workers": 0,
        "warmup_epochs": 1,
        "lr": 1e-4,
    }  # of 8 captions: one step an epoch
    clip, options = fresh_clip(), PARAMS.active.pretrain.model_copy(update=changes)
    curves = pretrain(clip, tables, packed, options, SIZE, 0, CPU)
    return {"weights": clip.state_dict(), "curves": curves.rows}


def trained(world: Path, checkpoint: Checkpoint = NOTHING_KEPT, amp: bool = False, loader_workers: int = 0) -> dict:
    changes = {"epochs": STEPS, "t2i_batch": 5, "i2i_batch": 9, "num_instances": 3, "pad": 1, "warmup_epochs": 1, "peak_lr": 1e-4}
    clip = fresh_clip()
    model, curves = train(
        clip,
        fresh_parts(clip),
        *toy(world),
        model=PARAMS.model,
        loss=PARAMS.loss,
        tasks=BOTH,
        options=PARAMS.active.train.model_copy(update={**changes, "amp": amp, "loader_workers": loader_workers}),
        size=SIZE,
        seed=0,
        device=CPU,
        checkpoint=checkpoint,
    )
    return {"weights": model.state_dict(), "curves": curves.rows}


def resumed(world: Path) -> dict:
    state = world / f"state of {world_size()}"
    try:
        with StoppedAfter(state, 4) as checkpoint:
            trained(world, checkpoint)
    except Stopped:
        pass
    with Checkpoint(state, 0) as checkpoint:
        return trained(world, checkpoint)


def extracted(world: Path) -> dict:
    clip = fresh_clip()
    images, texts = ImageTower(clip, task_routing=True, i2i_token_noise=0.5), TextTower(clip)
    files = sorted((world / "people").rglob("*.png"))
    found = {}
    for count in range(6):
        for size in (1, 2, 4):
            found["t2i", count, size], found["i2i", count, size] = extract_image_features(
                images, files[:count], (24, 12), size, CPU
            )
            captions = [f"A person with {number} bags." for number in range(count)]
            found["text", count, size] = extract_text_features(texts, captions, 32, size, CPU)
    return found


def evaluated(world: Path) -> dict:
    clip, tables = fresh_clip(), Manifests(world / "out" / "manifests")
    towers = ImageTower(clip, task_routing=True, i2i_token_noise=0.5), TextTower(clip)
    figures, ranks = evaluate_towers(*towers, tables, SIZE, Evaluate(batch_size=3, rank_list_length=3), CPU)
    return {"figures": figures, "ranks": {task: table.to_csv() for task, table in ranks.items()}}


def drifted() -> str:
    """What a process says whose model is not that of the others."""
    from hpl.backbones.distributed import check_agreement

    weights = [torch.ones(3, 2), torch.tensor(1.0)]
    check_agreement("here", weights)
    weights[1] += rank() * 1e-7
    try:
        check_agreement("there", weights)
    except HplError as error:
        return str(error)
    return ""


def everything(world: Path) -> None:
    """All of it in one group of processes, because starting one takes seconds. Each writes what it found."""
    torch.set_num_threads(1)
    found = {name: losses_and_gradients(*variant) for name, variant in VARIANTS.items()}
    found |= {"pretrained": pretrained(world), "trained": trained(world), "resumed": resumed(world)}
    found |= {"with workers": trained(world, loader_workers=1), "amp": trained(world, amp=True)}
    found |= {"extracted": extracted(world), "evaluated": evaluated(world), "drifted": drifted()}
    torch.save(found, world / f"{rank()} of {world_size()}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[dict]]:
    """What one process finds, and what each of two does."""
    world = tmp_path_factory.mktemp("world")
    for person in range(3):
        for number in range(3):
            file = save(picture(600 + 10 * person + number), world / "people" / f"p{person}" / f"{number}.png")
            file.with_suffix(".txt").write_text(f"Person {person} in picture {number}.")
    build(world, world / "out", datasets=({"format": "folders", "folder": "people", "use": ["test"]},))
    run_processes(partial(everything, world), 1)
    run_processes(partial(everything, world), 2)
    whole, *parts = (torch.load(world / f"{name}.pt", weights_only=False) for name in ("0 of 1", "0 of 2", "1 of 2"))
    return whole, parts


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_losses_and_gradients(found: tuple[dict, list[dict]], variant: str) -> None:
    whole, parts = found
    for part in parts:
        for kind in ("losses", "gradients"):
            assert list(part[variant][kind]) == list(whole[variant][kind])
            for name, value in whole[variant][kind].items():
                torch.testing.assert_close(
                    part[variant][kind][name], value, rtol=1e-4, atol=1e-6, msg=lambda text: f"{name}: {text}"
                )
    if variant == "all":
        assert list(whole[variant]["losses"]) == LOSSES
        assert len(whole[variant]["gradients"]) > 70 and all(value.any() for value in whole[variant]["losses"].values())
