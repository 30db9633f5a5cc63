"""Eqs. 3 to 7 and 13 against float64 by hand (tests/support/naive.py): the prompts, the inversion networks, and stage I's whole
loss."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.config import Inversion, Loss, load_params
from hpl.prompts.construct import construct_losses
from hpl.prompts.inversion import InversionNetwork
from hpl.prompts.parts import PromptParts
from hpl.prompts.template import PromptEncoder
from tests.support import naive

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
LOSS: Loss = PARAMS.loss


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["instance", "identity"])
def test_a_prompt_and_its_gradient_at_every_vector(clip: CLIP, kind: str) -> None:
    """Eqs. 3, 5 (with the instance tokens of a picture or a caption) and 7 (without): the token at end-of-text, through M~_t."""
    encoder = PromptEncoder(frozen_copy(TextTower(clip)))
    reference = deepcopy(encoder.tower).double()
    low = [random(0, 2, 4, 24).requires_grad_(), random(1, 2, 3, 24).requires_grad_()][: 2 if kind == "instance" else 1]
    high = [part.detach().double().requires_grad_() for part in low]
    got = getattr(encoder, f"{kind}_prompt")(*low)
    expected = torch.stack([getattr(naive, f"{kind}_prompt")(reference, *(part[b] for part in high)) for b in range(2)])
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    weights = random(2, 2, 16)
    (got * weights).sum().backward(), (expected * weights).sum().backward()
    for left, right in zip(low, high, strict=True):
        assert (right.grad.abs().sum(dim=-1) > 0).all()
        torch.testing.assert_close(left.grad.double(), right.grad, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize("ends", [None, [6, 3]])
def test_an_inversion_network(ends: list[int] | None) -> None:
    """Eq. 4: K queries before the tokens, pre-norm blocks, a linear map at the queries; nothing after end-of-text is seen."""
    torch.manual_seed(0)
    actual = InversionNetwork(input_width=16, output_width=24, num_tokens=3, num_layers=2, num_heads=2, output_scale=0.5)
    reference = deepcopy(actual).double()
    low = random(1, 2, 7, 16).requires_grad_()
    high = low.detach().double().requires_grad_()
    got = actual(low, None if ends is None else torch.tensor(ends))
    lengths = [7, 7] if ends is None else [end + 1 for end in ends]
    expected = torch.stack([naive.invert(reference, list(high[b, : lengths[b]])) for b in range(2)])
    assert got.shape == (2, 3, 24)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    weights = random(2, 2, 3, 24)
    (got * weights).sum().backward(), (expected * weights).sum().backward()
    torch.testing.assert_close(low.grad.double(), high.grad, rtol=1e-3, atol=1e-5)
    naive.assert_same_gradients(actual, reference)


@pytest.mark.parametrize("normalized", [True, False])
def test_the_loss_of_stage_one(clip: CLIP, normalized: bool) -> None:
    """Eq. 13, L_t2i + L_i2t + L_ic with all that is in them, from F_v and F_t on. Two of three people occur, one of them
    twice."""
    loss = LOSS.model_copy(update={"normalize_features": normalized, "prompt_temperature": 0.1})
    torch.manual_seed(0)
    tower = frozen_copy(TextTower(clip))
    actual = PromptParts(PARAMS.prompt, Inversion(layers=1, heads=2), tower, [5, 8, 9])
    with torch.no_grad():
        actual.identity_tokens.normal_()
    reference, reference_tower = deepcopy(actual).double(), deepcopy(tower).double()
    images, texts, ends, labels = random(1, 3, 10, 16), random(2, 2, 6, 16), [5, 2], [2, 0, 2]
    losses = construct_losses(actual, PromptEncoder(tower), images, texts, torch.tensor(ends), torch.tensor(labels), loss)

    v, t = [list(row) for row in images.double()], [list(row[: end + 1]) for row, end in zip(texts.double(), ends, strict=True)]
    identity = [reference.identity_tokens[label] for label in labels]
    v_prompts = [
        naive.instance_prompt(reference_tower, identity[b], naive.invert(reference.image_inversion, v[b])) for b in range(3)
    ]
    t_prompts = [
        naive.instance_prompt(reference_tower, identity[b], naive.invert(reference.text_inversion, t[b])) for b in range(2)
    ]
    r = [naive.identity_prompt(reference_tower, tokens) for tokens in identity]
    v_t2i, t_eos = [tokens[0] for tokens in v], [tokens[-1] for tokens in t]
    expected = {
        "t2i": naive.prompt_contrast(r, v_t2i, labels, 0.1),
        "i2t": naive.prompt_contrast(v_t2i, r, labels, 0.1),
        "ic": naive.squared_distance(v_prompts, v_t2i, normalized) + naive.squared_distance(t_prompts, t_eos, normalized),
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name].double(), value, rtol=1e-4, atol=1e-5, msg=name)
    sum(losses.values()).backward(), sum(expected.values()).backward()
    naive.assert_same_gradients(actual, reference, share=1e-3)
    assert (actual.identity_tokens.grad[1] == 0).all()  # nobody of the batch


def test_both_kinds_of_instance_prompt_carry_the_samples_own_identity_tokens(clip: CLIP) -> None:
    """Other identity tokens for person 8 change the losses of her pictures, and nothing of a batch she is not in."""
    torch.manual_seed(0)
    tower = frozen_copy(TextTower(clip))
    parts = PromptParts(PARAMS.prompt, Inversion(layers=1, heads=2), tower, [5, 8, 9])
    images, texts, ends = random(1, 2, 10, 16), random(2, 2, 6, 16), torch.tensor([5, 2])

    def consistency(labels: list[int]) -> float:
        return float(
            construct_losses(parts, PromptEncoder(tower), images, texts, ends, torch.tensor(labels), LOSS)["ic"].detach()
        )

    with_her, without_her = consistency([0, 1]), consistency([0, 2])
    with torch.no_grad():
        parts.identity_tokens[1] = 3 * torch.randn(4, 24)
    assert consistency([0, 1]) != pytest.approx(with_her, rel=1e-3) and consistency([0, 2]) == without_her
