"""Eqs. 2 and 14 from pixels and token ids to the gradient of every parameter, against float64 by hand
(tests/support/naive.py)."""

from copy import deepcopy

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from hpl.batches.loading import Batch
from hpl.training.model import HPL
from tests.support import naive
from tests.support.small_hpl import LABELS, LOSS, batch, model


def neck(features: list[Tensor], module: torch.nn.BatchNorm1d) -> list[Tensor]:
    """Batch norm without a bias term, over the batch."""
    centre = naive.mean(features)
    variance = naive.mean([(x - centre) ** 2 for x in features])
    return [(x - centre) / (variance + module.eps).sqrt() * module.weight for x in features]


def reference_terms(hpl: HPL, inputs: Batch, i2i_batch: str) -> dict[str, Tensor]:
    """The terms of eq. 14, weighted as METHOD.md says, 0.4 and 0.06; without prompts those of eq. 2."""
    pictures = [naive.image_tokens(hpl.images, image) for image in inputs.images_B3HW.double()]
    captions = [naive.caption_tokens(hpl.texts, ids.tolist()) for ids in inputs.token_ids_TL]
    v_t2i, t_eos, captioned = [tokens[0] for tokens in pictures[:3]], [tokens[-1] for tokens in captions], LABELS[:3]
    first = 0 if i2i_batch == "all" else 3
    v_i2i, seen = [tokens[1] for tokens in pictures[first:]], LABELS[first:]
    image_logits, text_logits = (
        [hpl.t2i_classifier.weight @ x + hpl.t2i_classifier.bias for x in features] for features in (v_t2i, t_eos)
    )
    i2i_logits = [hpl.i2i_classifier.weight @ x for x in neck(v_i2i, hpl.i2i_neck)]
    terms = {
        "sdm": naive.sdm(v_t2i, t_eos, captioned, 0.1),
        "id_t2i": naive.identity_t2i(image_logits, text_logits, captioned),
        "tri": naive.triplet(v_i2i, seen, 0.3),
        "id_i2i": naive.identity_i2i(i2i_logits, seen, 0.1),
    }
    if hpl.prompts is not None:
        p_v = [naive.invert(hpl.prompts.image_inversion, tokens) for tokens in pictures[:3]]
        p_t = [naive.invert(hpl.prompts.text_inversion, tokens) for tokens in captions]
        identity = [hpl.prompts.identity_tokens[label] for label in captioned]
        v_prompts, t_prompts = (
            [naive.instance_prompt(hpl.encoder.tower, own, instance) for own, instance in zip(identity, instances, strict=True)]
            for instances in (p_v, p_t)
        )
        terms |= {
            "cic": naive.identity_prompt_loss(v_i2i, list(hpl.prompts.identity_prompts), seen, 0.1),
            "tgps": 0.4 * naive.squared_distance(t_prompts, v_t2i, normalized=True),
            "vgps": 0.4 * naive.squared_distance(v_prompts, t_eos, normalized=True),
            "cmpr": 0.06 * naive.frobenius(p_t, p_v),
        }
    return terms


@pytest.mark.parametrize(
    ("prompts", "task_routing", "i2i_batch"),
    [(False, False, "all"), (False, True, "all"), (True, True, "all"), (True, True, "i2i")],
    ids=["eq2-baseline", "eq2", "eq14", "eq14-picture-set"],
)
def test_the_total_loss(clip: CLIP, prompts: bool, task_routing: bool, i2i_batch: str) -> None:
    """L_total (eq. 14), and L_base (eq. 2) where there are no prompts: every term, and the gradient of their sum."""
    actual = model(clip, prompts, task_routing)
    reference = deepcopy(actual).double()
    losses, _ = actual(batch(), LOSS.model_copy(update={"i2i_batch": i2i_batch}), ["t2i", "i2i"])
    expected = reference_terms(reference, batch(), i2i_batch)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name].double(), value, rtol=2e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    sum(losses.values()).backward(), sum(expected.values()).backward()
    naive.assert_same_gradients(actual, reference, share=2e-3)


def test_a_batch_where_nobody_occurs_twice_has_no_triplet_and_trains(clip: CLIP) -> None:
    """An identity with one picture in the batch, whichever set it is of: every term is finite and has a finite gradient."""
    hpl, inputs = model(clip, prompts=True, task_routing=True), batch()
    losses, _ = hpl(Batch(inputs.images_B3HW[:5], inputs.token_ids_TL, torch.arange(5), 3), LOSS, ["t2i", "i2i"])
    assert float(losses["tri"].detach()) == 0.0 and all(float(losses[name].detach()) > 0 for name in losses if name != "tri")
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in hpl.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(
    ("person", "i2i_batch", "changed"),
    [
        (1, "all", {"id_t2i", "id_i2i", "cic", "tgps", "vgps"}),
        (1, "i2i", {"id_t2i", "tgps", "vgps"}),
        (3, "all", {"id_i2i", "cic"}),
        (3, "i2i", {"id_i2i", "cic"}),
    ],
    ids=["captioned-all", "captioned-i2i", "pictured-all", "pictured-i2i"],
)
def test_which_losses_a_person_of_one_set_alone_takes_part_in(clip: CLIP, person: int, i2i_batch: str, changed: set[str]) -> None:
    """Were the captioned person 1, or the pictured person 3, somebody else (4), these terms would differ and no others."""
    hpl, inputs = model(clip, prompts=True, task_routing=True), batch()
    renamed = [4 if label == person else label for label in LABELS]
    loss = LOSS.model_copy(update={"i2i_batch": i2i_batch})
    first, second = (
        hpl(Batch(inputs.images_B3HW, inputs.token_ids_TL, torch.tensor(labels), 3), loss, ["t2i", "i2i"])[0]
        for labels in (LABELS, renamed)
    )
    assert all(torch.isfinite(value) for value in first.values())
    assert {name for name in first if not torch.allclose(first[name], second[name], rtol=1e-5)} == changed
