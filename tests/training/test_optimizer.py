"""What moves by whose gradient, and what decays: against Adam written out, and on the real model."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from torch import nn

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import TextTower, frozen_copy
from hpl.config import Inversion, Train, load_params
from hpl.prompts.learned import LearnedPrompts
from hpl.training.model import HPL, TERMS, Classifier
from hpl.training.optimizer import Optimizer, parameter_groups
from tests.support.toy_batch import CAPTIONS, toy_batch

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PAPER = PARAMS.profiles["paper-cuhk-market"].train
BOTH = ["t2i", "i2i"]


def options(**changes: object) -> Train:
    return PAPER.model_copy(update=changes)


def make(clip: CLIP) -> HPL:
    torch.manual_seed(0)
    learned = LearnedPrompts(PARAMS.prompt, Inversion(layers=1, heads=2), frozen_copy(TextTower(clip)), [4, 5, 6, 7])
    learned.identity_prompts.normal_()
    learned.identity_tokens.requires_grad_(False)
    return HPL(clip, PARAMS.model, 4, learned, seed=0)


def steps(hpl: HPL, chosen: Train, count: int = 3, tasks: list[str] = BOTH, micro_batch: int | None = None) -> Optimizer:
    optimizer = Optimizer(hpl, chosen, tasks)
    for _ in range(count):
        losses, _ = hpl(toy_batch(), PARAMS.loss, tasks, micro_batch)
        optimizer.step(losses, 1e-3)
    return optimizer


class Shared(nn.Module):
    """One weight that both tasks move, one that T2I alone moves, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.text = nn.Parameter(torch.tensor([[1.0, -2.0]])), nn.Parameter(torch.tensor([[3.0]]))
        self.head = Classifier(1, 2, bias=False)
        nn.init.ones_(self.head.weight)
        self.images = type("Tower", (), {"new_parameters": staticmethod(list)})

    def losses(self) -> dict[str, torch.Tensor]:
        return {"sdm": 100 * (self.both**2).sum() + self.text.sum(), "tri": (self.both**3).sum() + (self.head.weight**2).sum()}


def adam(
    weight: np.ndarray, gradients: list, lr: float, eps: float, decay: float, coupled: bool
) -> np.ndarray:  # one task's steps, each from the weight of its time
    """Kingma & Ba, Algorithm 1; decoupled decay as Loshchilov & Hutter, Algorithm 2. `gradients` are functions of the weight."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for time, gradient in enumerate(gradients, start=1):
        slope = gradient(weight) + decay * weight * coupled
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        weight = weight * (1 - lr * decay * (not coupled))
        weight = weight - lr * (first / (1 - 0.9**time)) / (np.sqrt(second / (1 - 0.999**time)) + eps)
    return weight


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_joint_moments_are_adam_of_the_sum(kind: str) -> None:
    model = Shared()
    optimizer = Optimizer(
        model, options(optimizer=kind, moments="joint", eps=1e-3, weight_decay=0.1, classifier_lr_factor=5), BOTH
    )
    for _ in range(4):
        optimizer.step(model.losses(), 0.01)
    how = {"eps": 1e-3, "decay": 0.1, "coupled": kind == "adam"}
    expected = adam(np.array([[1.0, -2.0]]), [lambda w: 200 * w + 3 * w**2] * 4, lr=0.01, **how)
    np.testing.assert_allclose(model.both.detach(), expected, rtol=1e-5)
    head = adam(np.ones((2, 1)), [lambda w: 2 * w] * 4, lr=0.05, **how)
    np.testing.assert_allclose(model.head.weight.detach(), head, rtol=1e-5)


def test_moments_of_each_task_add_the_steps_of_two_adams() -> None:
    model = Shared()
    optimizer = Optimizer(model, options(moments="task", eps=1e-8, weight_decay=0.0, classifier_lr_factor=1), BOTH)
    moments = {task: [np.zeros(2), np.zeros(2)] for task in BOTH}
    weight = np.array([1.0, -2.0])
    for time in range(1, 5):
        optimizer.step(model.losses(), 0.01)
        change = 0
        for task, slope in (("t2i", 200 * weight), ("i2i", 3 * weight**2)):
            moments[task] = [0.9 * moments[task][0] + 0.1 * slope, 0.999 * moments[task][1] + 0.001 * slope**2]
            first, second = moments[task][0] / (1 - 0.9**time), moments[task][1] / (1 - 0.999**time)
            change = change + first / (np.sqrt(second) + 1e-8)
        weight = weight - 0.01 * change
        np.testing.assert_allclose(model.both.detach()[0], weight, rtol=1e-5)
    np.testing.assert_allclose(model.text.detach(), 3 - 0.04, rtol=1e-5)  # T2I alone moves it: one step of the rate each
    assert len(optimizer.adams["i2i"].state) == 2 and len(optimizer.adams["t2i"].state) == 2


def test_a_task_that_is_absent_from_a_step_moves_nothing() -> None:
    model = Shared()
    optimizer = Optimizer(model, options(moments="task"), BOTH)
    optimizer.step({"tri": model.losses()["tri"]}, 0.01)
    assert torch.equal(model.text, torch.tensor([[3.0]])) and not optimizer.adams["t2i"].state


def test_groups_by_type(clip: CLIP) -> None:
    hpl = make(clip)
    hpl.another = Classifier(16, 4)  # whatever it is called
    groups = parameter_groups(hpl, options(classifier_lr_factor=5.0, bias_lr_factor=2.0, new_token_lr_factor=3.0))
    found = {id(parameter): (group["lr_factor"], group["decays"]) for group in groups for parameter in group["params"]}
    of = {name: found.get(id(parameter)) for name, parameter in hpl.named_parameters()}
    assert of["another.weight"] == of["t2i_classifier.weight"] == of["i2i_classifier.weight"] == (5.0, True)
    assert of["another.bias"] == of["i2i_neck.weight"] == (5.0, False)
    assert of["images.i2i_token"] == of["images.i2i_position"] == (3.0, False)
    for name in ("images.visual.class_embedding", "images.visual.positional_embedding", "texts.token_embedding.weight"):
        assert of[name] == (1.0, False)
    assert of["texts.positional_embedding"] == of["prompts.image_inversion.queries"] == (1.0, False)
    assert of["images.visual.transformer.resblocks.0.mlp.c_fc.weight"] == of["images.visual.proj"] == (1.0, True)
    assert of["images.visual.transformer.resblocks.0.mlp.c_fc.bias"] == (2.0, False)
    assert of["images.visual.transformer.resblocks.0.ln_1.weight"] == (1.0, False)
    assert all((of[name] is not None) == parameter.requires_grad for name, parameter in hpl.named_parameters())


@pytest.mark.parametrize("moments", ["joint", "task"])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_words_that_no_caption_holds_keep_their_embedding_to_the_bit(clip: CLIP, kind: str, moments: str) -> None:
    hpl = make(clip)
    before = hpl.texts.token_embedding.weight.detach().clone()
    steps(hpl, options(optimizer=kind, moments=moments, weight_decay=0.1))
    words = torch.zeros(len(before), dtype=torch.bool)
    words[tokenize(CAPTIONS, 32).flatten()] = True
    words[0] = False  # the padding, behind the end of every caption
    after = hpl.texts.token_embedding.weight.detach()
    assert torch.equal(after[~words], before[~words]) and not torch.equal(after[words], before[words])


@pytest.mark.parametrize("moments", ["joint", "task"])
def test_one_task_alone_is_the_same_with_either_moments_and_in_micro_batches(clip: CLIP, moments: str) -> None:
    plain, other, small = (make(deepcopy(clip)) for _ in range(3))
    tasks = ["i2i"] if moments == "joint" else BOTH
    steps(plain, options(moments="task"), tasks=tasks)
    steps(other, options(moments=moments), tasks=tasks)
    steps(small, options(moments=moments), tasks=tasks, micro_batch=2)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        torch.testing.assert_close(small.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_state_goes_into_a_checkpoint_and_back(clip: CLIP, tmp_path: Path) -> None:
    through, stopped = make(deepcopy(clip)), make(deepcopy(clip))
    chosen = options(moments="task")
    steps(through, chosen, 4)
    optimizer = steps(stopped, chosen, 2)
    torch.save({"model": stopped.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    again = make(deepcopy(clip))
    again.load_state_dict(state["model"])
    resumed = Optimizer(again, chosen, BOTH)
    resumed.load_state_dict(state["optimizer"])
    for _ in range(2):
        resumed.step(again(toy_batch(), PARAMS.loss, BOTH)[0], 1e-3)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in through.state_dict().items())


def test_every_term_belongs_to_a_task() -> None:
    assert {term.task.name for term in TERMS.values()} == set(BOTH)
