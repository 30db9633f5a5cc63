"""Stage II: what learns and what does not, the switches, batch composition, schedules, and a loss that is not finite."""

import math
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip.model import CLIP

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.batches.loading import TrainingData
from hpl.batches.sampling import identity_batches, shuffled_batches, spread_batches
from hpl.config import Inversion, Loss, Model, load_params
from hpl.files import HplError
from hpl.losses.sdm import similarity_distribution_loss
from hpl.prompts.learned import LearnedPrompts
from hpl.runtime.curves import Curves, check_finite
from hpl.runtime.schedule import warmup_cosine
from hpl.tasks import T2I
from hpl.training.model import HPL, TERMS, Features, OfCaptions, OfPictures, Term
from hpl.training.pretrain import pretrain
from hpl.training.train import epoch_steps
from tests.support.parameters import with_profile
from tests.support.toy_batch import toy_batch

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
MODEL: Model = PARAMS.model
LOSS: Loss = PARAMS.loss
BOTH = ["t2i", "i2i"]


def make(clip: CLIP, model: Model = MODEL, prompts: bool = True) -> HPL:
    torch.manual_seed(0)
    learned = None
    if prompts:
        learned = LearnedPrompts(PARAMS.prompt, Inversion(layers=1, heads=2), frozen_copy(TextTower(clip)), [4, 5, 6, 7])
        learned.identity_prompts.normal_()
    return HPL(clip, model, 4, learned, seed=0)


def losses_of(clip: CLIP, *, tasks: list[str] = BOTH, prompts: bool = True, model: dict | None = None, **changes: object) -> dict:
    hpl = make(clip, MODEL.model_copy(update=model or {}), prompts)
    return hpl(toy_batch(), LOSS.model_copy(update=changes), tasks)[0]


def test_every_term_of_the_total_is_there(clip: CLIP) -> None:
    assert list(losses_of(clip)) == ["sdm", "id_t2i", "tri", "id_i2i", "cic", "tgps", "vgps", "cmpr"]


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ({"prompts": False}, {"cic", "tgps", "vgps", "cmpr"}),
        ({"prompt_reg": 0.0}, {"cmpr"}),
        ({"text_guided": False}, {"tgps"}),
        ({"vision_guided": False}, {"vgps"}),
        ({"instance_align": 0.0}, {"tgps", "vgps"}),
        ({"identity_prompt": 0.0}, {"cic"}),
        ({"tasks": ["t2i"]}, {"tri", "id_i2i", "cic"}),
        ({"tasks": ["i2i"]}, {"sdm", "id_t2i", "tgps", "vgps", "cmpr"}),
    ],
)
def test_each_switch_removes_its_own_terms_and_leaves_the_others_alone(clip: CLIP, switch: dict, gone: set[str]) -> None:
    full, reduced = losses_of(clip), losses_of(clip, **switch)
    assert set(full) - set(reduced) == gone
    for name, value in reduced.items():
        torch.testing.assert_close(value, full[name], msg=name)


def test_weights_scale_their_terms(clip: CLIP) -> None:
    once, twice = losses_of(clip), losses_of(clip, prompt_reg=0.12, instance_align=0.8, identity_prompt=2.0)
    for name in ("cmpr", "tgps", "vgps", "cic"):
        torch.testing.assert_close(twice[name], 2 * once[name])


def test_i2i_losses_see_every_picture_or_only_those_of_the_picture_set(clip: CLIP) -> None:
    everything, part = losses_of(clip, i2i_batch="all"), losses_of(clip, i2i_batch="i2i")
    assert everything["tri"] != part["tri"] and everything["id_i2i"] != part["id_i2i"]
    torch.testing.assert_close(everything["sdm"], part["sdm"])


def test_without_task_routing_one_token_serves_both_tasks(clip: CLIP) -> None:
    hpl = make(clip, MODEL.model_copy(update={"task_routing": False}))
    assert not any("i2i_token" in name for name, _ in hpl.named_parameters())
    tokens = hpl.images(toy_batch().images_B3HW)
    assert torch.equal(tokens[:, 0], tokens[:, 1])
    sum(hpl(toy_batch(), LOSS, BOTH)[0].values()).backward()


def test_inversion_networks_stand_still_if_asked_but_still_carry_gradients(clip: CLIP) -> None:
    hpl = make(clip)
    hpl.prompts.requires_grad_(False)
    prompt_losses, _ = hpl(toy_batch(), LOSS, BOTH)
    (prompt_losses["tgps"] + prompt_losses["vgps"] + prompt_losses["cmpr"]).backward()
    assert all(parameter.grad is None for parameter in hpl.prompts.parameters())
    assert hpl.texts.token_embedding.weight.grad.abs().sum() > 0
    assert hpl.images.visual.conv1.weight.grad.abs().sum() > 0


def test_a_feature_is_gathered_by_the_rows_that_its_type_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpl.training.model.gather_shares", lambda own, *counts: (own, counts))
    kinds = {field.name: field.type for field in fields(Features)}
    gathered = Features(**{name: torch.ones(1) for name in kinds}).gather(3, 4)
    for name, kind in kinds.items():
        assert getattr(gathered, name)[1] == {OfPictures: (3, 4), OfCaptions: (3,)}[kind]
    assert Features(text_TD=torch.ones(1)).gather(3, 4).classes_BXD is None


def test_a_term_more_is_weighted_and_has_its_place(clip: CLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    more = Term(T2I, lambda hpl, x: x.v_t2i_TD.square().mean(), weight=lambda loss: 2 * loss.prompt_reg)
    monkeypatch.setitem(TERMS, "size", more)
    losses = losses_of(clip)
    assert list(losses)[-1] == "size" and "size" not in losses_of(clip, prompt_reg=0.0)
    assert "size" not in losses_of(clip, tasks=["i2i"]) and "size" in losses_of(clip, prompts=False)
    torch.testing.assert_close(2 * losses["size"], losses_of(clip, prompt_reg=0.12)["size"])


PICTURES = pd.DataFrame({"image_id": range(100, 140), "pid": [n // 4 + 1 for n in range(40)], "camid": 1})
CAPTIONS = pd.DataFrame({"image_id": [100 + n // 2 for n in range(32)], "pid": [n // 8 + 1 for n in range(32)]})
PIDS = np.unique(PICTURES["pid"])


def steps(tasks: list[str] = BOTH, epoch: int = 1) -> list:
    options = PARAMS.active.train.model_copy(update={"t2i_batch": 8, "i2i_batch": 12, "num_instances": 4})
    params = with_profile(PARAMS, train=options).model_copy(update={"tasks": tasks, "seed": 0})
    return epoch_steps(CAPTIONS, PICTURES[PICTURES["image_id"] >= 116], PIDS, params, epoch)


def test_a_step_holds_pairs_then_pictures_of_the_other_set_four_an_identity() -> None:
    made = steps()
    assert len(made) == 4
    assert sorted(np.concatenate([step.caption_rows for step in made])) == list(range(32))  # each caption once an epoch
    for step in made:
        assert len(step.caption_rows) == 8 and len(step.image_ids) == len(step.labels) == 20
        np.testing.assert_array_equal(step.image_ids[:8], CAPTIONS["image_id"].to_numpy()[step.caption_rows])
        assert (step.image_ids[8:] >= 116).all()  # pictures from 116 have no caption
        np.testing.assert_array_equal(PIDS[step.labels], PICTURES["pid"].to_numpy()[step.image_ids - 100])
        _, counts = np.unique(step.labels[8:], return_counts=True)
        assert counts.tolist() == [4, 4, 4]
        assert len(set(step.image_ids[8:].tolist())) == 12  # four different pictures each


def test_a_single_task_takes_its_own_half() -> None:
    assert all(len(step.image_ids) == len(step.caption_rows) == 8 for step in steps(["t2i"]))
    assert all(len(step.caption_rows) == 0 and len(step.image_ids) == 12 for step in steps(["i2i"]))


def test_steps_depend_on_seed_and_epoch_alone() -> None:
    np.random.seed(5)
    first = steps()
    np.random.seed(6)
    for a, b in zip(first, steps(), strict=True):
        assert a.seed == b.seed and np.array_equal(a.image_ids, b.image_ids)
    assert not np.array_equal(first[0].image_ids, steps(epoch=2)[0].image_ids)


def test_a_pace_leaves_a_half_out_of_the_other_steps() -> None:
    def made(**changes: float) -> list:
        options = PARAMS.active.train.model_copy(update={"t2i_batch": 8, "i2i_batch": 12, "num_instances": 4, **changes})
        return epoch_steps(CAPTIONS, PICTURES, PIDS, with_profile(PARAMS, train=options), 1)

    slow_pictures = made(i2i_pace=0.5)
    assert [len(step.image_ids) - len(step.caption_rows) for step in slow_pictures] == [0, 12, 0, 12]
    assert [len(step.caption_rows) for step in slow_pictures] == [8] * 4
    slow_captions = made(t2i_pace=0.3)
    assert len(slow_captions) == 14 and all(len(step.image_ids) - len(step.caption_rows) == 12 for step in slow_captions)
    assert sorted(np.concatenate([step.caption_rows for step in slow_captions])) == list(range(32))  # still each caption once


def test_spread_batches_pass_over_all_people_and_take_their_cameras_in_turn() -> None:
    pids, camids = np.repeat(np.arange(5), 6), np.tile([1, 1, 1, 2, 2, 3], 5)
    made = spread_batches(pids, camids, 5, 8, 4, np.random.default_rng(0))
    for rows in made:
        assert len(set(rows.tolist())) == 8
        for person in (rows[:4], rows[4:]):
            assert len(set(pids[person])) == 1 and set(camids[person[:3]]) == {1, 2, 3}
    met = [pid for rows in made for pid in pids[rows[::4]]]
    assert sorted(met[:5]) == sorted(met[5:]) == list(range(5))
    assert all(len(set(met[start : start + 2])) == 2 for start in range(0, 10, 2))
    (repeated,) = spread_batches(np.array([1, 1, 2]), np.array([1, 2, 1]), 1, 8, 4, np.random.default_rng(0))
    assert sorted(repeated) == [0, 0, 1, 1, 2, 2, 2, 2]


def test_few_identities_make_a_smaller_batch() -> None:
    pids = np.array([1, 1, 2])
    (only,) = identity_batches(pids, 1, 16, 4, 0, 1)
    assert len(only) == 8 and sorted(pids[only]) == [1] * 4 + [2] * 4


def test_shuffled_batches() -> None:
    whole, dropped = shuffled_batches(10, 4, 0, 1, drop_last=False), shuffled_batches(10, 4, 0, 1, drop_last=True)
    assert [len(part) for part in whole] == [4, 4, 2] and [len(part) for part in dropped] == [4, 4]
    assert sorted(np.concatenate(whole)) == list(range(10))
    assert [len(part) for part in shuffled_batches(3, 4, 0, 1, drop_last=True)] == [3]


def test_the_papers_learning_rate() -> None:
    """1e-6 to 1e-5 over 5 of 60 epochs, then a cosine to zero (METHOD, stage II)."""
    rates = [warmup_cosine(epoch, 60, 5, 1e-6, 1e-5) for epoch in (0, 2.5, 5, 32.5, 60)]
    np.testing.assert_allclose(rates, [1e-6, 5.5e-6, 1e-5, 5e-6, 0], atol=1e-12)


def test_a_loss_that_is_not_finite_stops_the_run_by_name() -> None:
    losses = {"sdm": torch.tensor(1.0), "tri": torch.tensor(float("nan")), "cic": torch.tensor(float("inf"))}
    with pytest.raises(HplError, match=r"epoch 2, step 3: non-finite loss: tri = nan, cic = inf"):
        check_finite(losses, "train, epoch 2, step 3")
    assert check_finite({"sdm": torch.tensor(1.5), "cic": torch.tensor(2)}, "train") == {"sdm": 1.5, "cic": 2.0}


def test_curves_average_an_epoch(tmp_path: Path) -> None:
    curves = Curves(["sdm", "cmpr"])
    for value in (1.0, 3.0):
        curves.add({"sdm": torch.tensor(value)})
    curves.end_epoch(1, lr=0.1)
    curves.write(tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "epoch,sdm,cmpr,lr\n1,2,0,0.1\n"


def test_what_some_steps_measure_is_their_mean_and_else_empty(tmp_path: Path) -> None:
    curves = Curves(["sdm"], ["task_cosine"])
    for epoch, cosine in enumerate((0.5, None, math.nan), start=1):
        for value in (1.0, 3.0):
            curves.add({"sdm": torch.tensor(value)})
        if cosine is not None:
            curves.note({"task_cosine": cosine})
        curves.end_epoch(epoch)
    curves.write(tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "epoch,sdm,task_cosine\n1,2,0.5\n2,2,\n3,2,\n"


def test_losses_are_computed_in_full_precision_under_autocast(clip: CLIP) -> None:
    """Half-precision logits of cosines / 0.02 would be coarse to a quarter of a nat."""
    hpl = make(clip)
    seen = []

    def spy(images: torch.Tensor, texts: torch.Tensor, pids: torch.Tensor, *how: float) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return similarity_distribution_loss(images, texts, pids, *how)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype=torch.bfloat16):
        patch.setattr("hpl.training.model.similarity_distribution_loss", spy)
        losses, _ = hpl(toy_batch(), LOSS, BOTH)
    assert seen == [False] and losses["sdm"].dtype == losses["cic"].dtype == losses["tri"].dtype == torch.float32
    for name, value in losses_of(clip).items():
        torch.testing.assert_close(losses[name], value, rtol=0.1, atol=0.1, msg=name)


def test_heads_start_the_same_with_and_without_prompts(clip: CLIP) -> None:
    with_prompts, without = make(clip), make(clip, prompts=False)
    assert torch.equal(with_prompts.t2i_classifier.weight, without.t2i_classifier.weight)
    assert torch.equal(with_prompts.i2i_classifier.weight, without.i2i_classifier.weight)


def test_no_pretraining_needs_no_pictures(clip: CLIP) -> None:
    params = with_profile(PARAMS, pretrain=PARAMS.profiles["paper-cuhk-market"].pretrain)
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    assert pretrain(clip, TrainingData(SimpleNamespace(), Path("none")), params, torch.device("cpu")).rows == []
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_is_the_step_on_the_cpu(clip: CLIP) -> None:
    device = torch.device("cuda")
    on_gpu, _ = make(deepcopy(clip)).to(device)(toy_batch().to(device), LOSS, BOTH)
    for name, value in losses_of(clip).items():
        torch.testing.assert_close(on_gpu[name].cpu(), value, rtol=1e-3, atol=1e-3, msg=name)
