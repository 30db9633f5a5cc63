"""The real loops of both stages: what is trained and what is frozen, by name and to the bit, and the learning rate of every
step."""

import math
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from torch import nn

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.batches.loading import Batch, TrainingData
from hpl.config import Inversion, Params, Train, load_params
from hpl.prompts import construct as stage_one
from hpl.prompts.cache import FeatureCache, cache_features
from hpl.prompts.construct import ConstructLosses
from hpl.prompts.learned import LearnedPrompts
from hpl.training import train as stage_two
from hpl.training.model import HPL, Classifier
from tests.support.parameters import with_profile
from tests.support.tiny import SIZE
from tests.support.toy import PIDS, Tables

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PAPER = PARAMS.profiles["paper-cuhk-market"]
INVERSION = Inversion(layers=1, heads=2)
CPU = torch.device("cpu")
BOTH = ["t2i", "i2i"]

# every parameter and buffer of stage II, by the part it belongs to
PARTS = {
    "image tower": ("images.visual.",),
    "second token": ("images.i2i_token", "images.i2i_position"),
    "text tower": ("texts.",),
    "t2i classifier": ("t2i_classifier.",),
    "i2i neck": ("i2i_neck.weight", "i2i_neck.running_mean", "i2i_neck.running_var", "i2i_neck.num_batches_tracked"),
    "i2i classifier": ("i2i_classifier.",),
    "I_v": ("prompts.image_inversion.",),
    "I_t": ("prompts.text_inversion.",),
    "M~_t": ("encoder.tower.", "encoder.opening", "encoder.link", "encoder.closing"),
    "identity tokens": ("prompts.identity_tokens",),
    "identity prompts": ("prompts.identity_prompts", "prompts.pids"),
    "neck bias": ("i2i_neck.bias",),
}
FROZEN = {"M~_t", "identity tokens", "identity prompts", "neck bias"}
T2I = {"t2i classifier", "text tower"}
I2I = {"i2i neck", "i2i classifier"}
NETWORKS = {"I_v", "I_t"}


def part_of(name: str) -> str:
    """The one part that a tensor's name belongs to."""
    (part,) = [part for part, names in PARTS.items() if name.startswith(names)]
    return part


class Recorder(torch.optim.Adam):
    """Adam that keeps the learning rates of every step, and itself."""

    made: list["Recorder"] = []

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.rates: list[tuple[float, ...]] = []
        Recorder.made.append(self)

    def step(self, *arguments: object) -> None:
        self.rates.append(tuple(group["lr"] for group in self.param_groups))
        super().step(*arguments)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    monkeypatch.setattr(Recorder, "made", [])
    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    return Recorder.made


# stage I


@pytest.fixture
def cache(clip: CLIP, tmp_path: Path) -> FeatureCache:
    """F_v and F_t of the toy tables, made by the frozen towers of `clip`."""
    before = deepcopy(clip.state_dict())
    params = with_profile(PARAMS, cache_features=PAPER.cache_features, input=SIZE)
    cache_features(clip, TrainingData(Tables(tmp_path), tmp_path), params, tmp_path, CPU)
    for name, value in clip.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in clip.parameters())
    return FeatureCache(tmp_path)


def paper_stage_one(**changes: object) -> Params:
    return with_profile(PARAMS, construct_prompts=PAPER.construct_prompts.model_copy(update=changes), inversion=INVERSION)


def test_stage_one_trains_the_inversion_networks_and_the_identity_tokens_alone(
    cache: FeatureCache, clip: CLIP, recorder: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = []

    class Kept(LearnedPrompts):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            fresh.append(deepcopy(self.state_dict()))

    monkeypatch.setattr(stage_one, "LearnedPrompts", Kept)
    tower = frozen_copy(TextTower(clip))
    encoders = deepcopy({**tower.state_dict(), **clip.state_dict()})
    prompts, _ = stage_one.construct_prompts(cache, tower, paper_stage_one(epochs=1, batch_size=4), CPU)
    for name, value in {**tower.state_dict(), **clip.state_dict()}.items():
        assert torch.equal(value, encoders[name]), name
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in tower.parameters())
    assert all(parameter.grad is None for parameter in clip.parameters())

    (optimizer,) = recorder
    names = {id(parameter): name for name, parameter in prompts.named_parameters()}
    networks, tokens = ({names[id(parameter)] for parameter in group["params"]} for group in optimizer.param_groups)
    assert tokens == {"identity_tokens"}
    assert networks == {name for name in names.values() if name.startswith(("image_inversion.", "text_inversion."))}
    assert tokens | networks == set(names.values())
    for name, value in prompts.state_dict().items():
        assert torch.equal(value, fresh[0][name]) == (name == "pids"), name  # r~ is filled at the end
    assert prompts.pids.tolist() == PIDS
    changed = (prompts.identity_tokens != fresh[0]["identity_tokens"]).flatten(1).any(dim=1)
    assert changed.all()  # of people of either set, or of both


def test_stage_one_rates_fall_by_a_fifth_an_epoch_for_ten_epochs(
    cache: FeatureCache, clip: CLIP, recorder: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """METHOD: 5e-5 for the networks, 0.02 for the identity tokens, 0.8 an epoch; two steps an epoch here."""

    def three_numbers(prompts: LearnedPrompts, *_: object) -> ConstructLosses:
        return ConstructLosses(prompts.identity_tokens.sum(), prompts.image_inversion.queries.sum(), torch.tensor(2.5))

    monkeypatch.setattr(stage_one, "construct_losses", three_numbers)
    params = paper_stage_one(batch_size=8)
    options = params.active.construct_prompts
    assert (options.epochs, options.inversion_lr, options.identity_lr, options.lr_decay) == (10, 5e-5, 0.02, 0.8)
    _, curves = stage_one.construct_prompts(cache, frozen_copy(TextTower(clip)), params, CPU)
    rates = np.array(recorder[0].rates)
    assert rates.shape == (20, 2)
    expected = [5e-5, 4e-5, 3.2e-5, 2.56e-5, 2.048e-5, 1.6384e-5, 1.31072e-5, 1.048576e-5, 8.388608e-6, 6.7108864e-6]
    for step in (0, 1):  # of each epoch
        np.testing.assert_allclose(rates[step::2, 0], expected, rtol=1e-9)
        np.testing.assert_allclose(rates[step::2, 1], 400 * np.array(expected), rtol=1e-9)
    for row in curves.rows:  # eq. 13: what is minimised is the sum of the three
        assert row["ic"] == 2.5 and row["total"] == pytest.approx(row["t2i"] + row["i2t"] + row["ic"], rel=1e-6)


# stage II


def options(**changes: object) -> Train:
    """The paper's, but for sizes that fit the toy tables: four steps an epoch."""
    small = {"t2i_batch": 2, "i2i_batch": 8, "pad": 2, "amp": False, "loader_workers": 0}
    return PAPER.train.model_copy(update={**small, **changes})


def run(
    clip: CLIP,
    folder: Path,
    options: Train,
    *,
    prompts: bool = True,
    tasks: list[str] = BOTH,
    model: dict | None = None,
    **loss: object,
) -> tuple[HPL, HPL]:
    """Stage II on the toy tables. Returns the model as it started and as it ended."""
    torch.manual_seed(0)
    learned = LearnedPrompts(PARAMS.prompt, INVERSION, frozen_copy(TextTower(clip)), PIDS) if prompts else None
    if learned is not None:
        learned.identity_prompts.normal_()
    routed = PARAMS.model.model_copy(update=model or {})
    start = HPL(deepcopy(clip), routed, len(PIDS), deepcopy(learned), seed=0)
    params = with_profile(PARAMS, train=options, input=SIZE).model_copy(
        update={"model": routed, "loss": PARAMS.loss.model_copy(update=loss), "tasks": tasks}
    )
    end, *_ = stage_two.train(clip, learned, TrainingData(Tables(folder), folder), params, CPU)
    return start, end


@pytest.mark.parametrize(
    ("switch", "still"),
    [
        ({}, set()),
        ({"train_inversion": False}, NETWORKS),
        ({"tasks": ["i2i"]}, T2I | NETWORKS),
        ({"tasks": ["t2i"]}, I2I),
        ({"model": {"task_routing": False}}, {"second token"}),
        ({"prompts": False}, NETWORKS),
        ({"identity_prompt": 0.0}, set()),
        ({"i2i_batch": "i2i"}, set()),
        ({"instance_align": 0.0}, set()),
        ({"prompt_reg": 0.0}, set()),
        ({"prompt_reg": 0.0, "text_guided": False}, {"I_t"}),
        ({"prompt_reg": 0.0, "vision_guided": False}, {"I_v"}),
        ({"prompt_reg": 0.0, "instance_align": 0.0}, NETWORKS),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_stage_two_trains_these_parts_and_leaves_the_others_to_the_bit(
    clip: CLIP, tmp_path: Path, recorder: list[Recorder], switch: dict, still: set[str]
) -> None:
    """M~_t, the identity tokens and r~ never move; each switch takes along what it alone would have trained."""
    switch = dict(switch)
    train_options = options(epochs=1, t2i_batch=8, start_lr=1e-3, train_inversion=switch.pop("train_inversion", True))
    start, end = run(clip, tmp_path, train_options, **switch)
    before, after = start.state_dict(), end.state_dict()
    assert before.keys() == after.keys()
    moved = {}
    for name, value in after.items():
        moved.setdefault(part_of(name), set()).add(not torch.equal(value, before[name]))
    expected = {part: {part not in FROZEN | still} for part in moved}
    assert moved == expected
    absent = ({"M~_t", "identity tokens", "identity prompts"} | NETWORKS) if switch.get("prompts") is False else set()
    absent |= {"second token"} if "model" in switch else set()
    assert moved.keys() == PARTS.keys() - absent

    (optimizer,) = recorder
    handed = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in end.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (part_of(name) not in FROZEN | still), name
        assert (id(parameter) in handed) == parameter.requires_grad, name
        assert parameter.requires_grad == (
            part_of(name) not in FROZEN | (NETWORKS if not train_options.train_inversion else set())
        )


class OneNumber(nn.Module):
    """Stands in for HPL where only the loop is of interest."""

    def __init__(self, *_: object) -> None:
        super().__init__()
        self.tower, self.head = nn.Parameter(torch.ones(1, 1)), Classifier(1, 1, bias=False)
        self.batches: list[Batch] = []
        self.texts = SimpleNamespace(transformer=SimpleNamespace())
        self.images = SimpleNamespace(visual=self.texts, new_parameters=list)

    def forward(self, batch: Batch, *_: object) -> tuple[dict[str, torch.Tensor], None]:
        self.batches.append(batch)
        return {"sdm": self.tower.sum(), "tri": self.head.weight.sum()}, None


def test_stage_two_rates_at_every_step_of_sixty_epochs(
    clip: CLIP, tmp_path: Path, recorder: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """METHOD: linear from 1e-6 to 1e-5 over 5 epochs, then a cosine, to zero at 60; heads times their factor."""
    chosen = options(classifier_lr_factor=3.0, diagnose_steps=0)
    assert (chosen.epochs, chosen.warmup_epochs, chosen.start_lr, chosen.peak_lr, chosen.weight_decay) == (
        60,
        5,
        1e-6,
        1e-5,
        4e-5,
    )
    assert (PAPER.train.optimizer, PAPER.train.moments, PAPER.train.eps) == ("adam", "joint", 1e-3)  # IRRA
    assert (PAPER.train.classifier_lr_factor, PAPER.train.bias_lr_factor) == (5.0, 2.0)
    monkeypatch.setattr(stage_two, "HPL", OneNumber)
    _, end = run(clip, tmp_path, chosen, prompts=False)
    (optimizer,) = recorder
    assert [group["weight_decay"] for group in optimizer.param_groups] == [4e-5, 4e-5]
    towers, heads = np.array(optimizer.rates).T
    assert len(towers) == 60 * 4
    times = np.arange(240) / 4
    cosine = 1e-5 * np.cos(math.pi / 2 * (times - 5) / 55) ** 2  # the half-angle form of (1 + cos) / 2
    np.testing.assert_allclose(towers, np.where(times < 5, 1e-6 + 1.8e-6 * times, cosine), rtol=1e-9)
    np.testing.assert_allclose(heads, 3 * towers, rtol=1e-9)
    by_hand = {
        0: 1e-6,
        2: 1.9e-6,
        10: 5.5e-6,
        19: 9.55e-6,
        20: 1e-5,
        75: 8.5355339e-6,
        130: 5e-6,
        185: 1.4644661e-6,
        239: 5.098e-10,
    }
    np.testing.assert_allclose(towers[list(by_hand)], list(by_hand.values()), rtol=1e-4)

    assert len(end.batches) == 240  # pairs first, then pictures of the other set
    for batch in end.batches:
        assert batch.num_captioned == len(batch.token_ids_TL) == 2 and len(batch.images_B3HW) == len(batch.labels_B) == 10
