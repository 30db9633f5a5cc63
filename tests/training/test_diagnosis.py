"""The diagnosis of a step, against gradients taken one by one, and on features that collapse."""

import math
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from open_clip.model import CLIP

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.config import Inversion, load_params
from hpl.prompts.learned import LearnedPrompts
from hpl.training.diagnosis import FIGURES, collapse_of, diagnose
from hpl.training.model import HPL, TERMS
from tests.support.toy_batch import toy_batch

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
BOTH = ["t2i", "i2i"]


def make(clip: CLIP) -> HPL:
    torch.manual_seed(0)
    learned = LearnedPrompts(PARAMS.prompt, Inversion(layers=1, heads=2), frozen_copy(TextTower(clip)), [4, 5, 6, 7])
    learned.identity_prompts.normal_()
    return HPL(clip, PARAMS.model, 4, learned, seed=0).train()


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_norms_and_angle_are_those_of_separate_backwards(clip: CLIP, micro_batch: int | None) -> None:
    hpl = make(clip)
    losses, compared = hpl(toy_batch(), PARAMS.loss, BOTH, micro_batch)
    figures = diagnose(hpl, losses, compared)
    assert set(figures) == set(FIGURES)
    of_task = {}
    for name, term in TERMS.items():
        again = deepcopy(hpl)
        again.zero_grad()
        again(toy_batch(), PARAMS.loss, BOTH)[0][name].backward()
        blocks = again.images.visual.transformer.named_parameters()
        flat = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for _, p in blocks])
        assert figures[f"gradient_{name}"] == pytest.approx(float(flat.norm()), rel=1e-3, abs=1e-6), name
        of_task[term.task.name] = of_task.get(term.task.name, 0) + flat
    cosine = torch.cosine_similarity(of_task["t2i"], of_task["i2i"], dim=0)
    assert figures["task_cosine"] == pytest.approx(float(cosine), abs=1e-3)
    sum(losses.values()).backward()  # the graph is still there


def test_a_single_task_has_no_angle(clip: CLIP) -> None:
    hpl = make(clip)
    figures = diagnose(hpl, *hpl(toy_batch(), PARAMS.loss, ["t2i"]))
    assert "task_cosine" not in figures and {"gradient_sdm", "instance_cosine", "mean_cosine"} <= set(figures)


def compared(features: list[list[float]], labels: list[int]) -> SimpleNamespace:
    loss = PARAMS.loss.model_copy(update={"triplet_margin": 0.3, "normalize_triplet": False})
    return SimpleNamespace(v_i2i_SD=torch.tensor(features), labels_S=torch.tensor(labels), loss=loss, image_instance_TKW=None)


def test_features_in_one_direction_are_told(clip: CLIP) -> None:
    hpl = make(clip)
    apart = diagnose(hpl, {}, compared([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], [0, 0, 1, 1]))
    assert apart["margin_share"] == 0 and apart["mean_cosine"] < 0.2 and not collapse_of(apart)
    together = diagnose(hpl, {}, compared([[1.0, 0.0], [1.0, 0.1], [1.0, 0.05], [1.0, 0.02]], [0, 0, 1, 1]))
    assert together["margin_share"] == 1 and together["mean_cosine"] > 0.99
    assert "mean cosine of 0.99" in collapse_of(together) and "100%" in collapse_of(together)


def test_one_person_alone_has_no_other_to_compare_with(clip: CLIP) -> None:
    figures = diagnose(make(clip), {}, compared([[1.0, 0.0], [1.0, 0.1]], [0, 0]))
    assert not figures and not collapse_of({"mean_cosine": math.nan})
