"""Eq. 1 against a float64 forward pass by hand: values and the gradient of every parameter of the tower."""

from copy import deepcopy

import pytest
import torch
from open_clip.model import CLIP

from hpl.backbones.towers import ImageTower
from tests.support import naive

IMAGES = torch.randn(2, 3, 24, 12, generator=torch.Generator().manual_seed(1))


def tower(clip: CLIP, task_routing: bool = True) -> ImageTower:
    return ImageTower(deepcopy(clip), task_routing=task_routing, i2i_token_init="copy", i2i_token_noise=0.5, seed=3)


@pytest.mark.parametrize("task_routing", [True, False])
def test_the_task_routed_transformer(clip: CLIP, task_routing: bool) -> None:
    """[cls_t2i, cls_i2i, patches] with full attention over all of it, every token normed and projected (eq. 1)."""
    actual, reference = tower(clip, task_routing), tower(clip, task_routing).double()
    weights = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(2))  # of each output, so that each has its gradient
    got = actual(IMAGES)
    expected = torch.stack([torch.stack(naive.image_tokens(reference, image)) for image in IMAGES.double()])
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    (got * weights).sum().backward(), (expected * weights).sum().backward()
    naive.assert_same_gradients(actual, reference)


def test_the_new_token_is_seen_by_all_unless_it_is_hidden(clip: CLIP) -> None:
    actual, reference = tower(clip), tower(clip).double()

    def sees(i: int, j: int) -> bool:
        return j != 1 or i == 1

    hidden = torch.stack([torch.stack(naive.image_tokens(reference, image, sees)) for image in IMAGES.double()])
    torch.testing.assert_close(actual(IMAGES, hide_i2i_token=True).double(), hidden, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(actual(IMAGES).double()[:, 0], hidden[:, 0], rtol=1e-3)


def test_the_original_class_token_becomes_v_t2i_and_the_new_one_starts_near_it(clip: CLIP) -> None:
    """`model.i2i_token_init`: a copy, off by `model.i2i_token_noise` of the token's own deviation; or of that deviation alone."""
    original, position = clip.visual.class_embedding.detach().clone(), clip.visual.positional_embedding[0].detach().clone()
    made = tower(clip)
    assert torch.equal(made.visual.class_embedding, original) and torch.equal(made.visual.positional_embedding[0], position)
    for new, old in ((made.i2i_token, original), (made.i2i_position, position)):
        assert 0.2 * old.std() < (new - old).std() < 0.9 * old.std()
    random = ImageTower(clip, task_routing=True, i2i_token_init="random", i2i_token_noise=0.5, seed=3)
    torch.testing.assert_close(made.i2i_token - original, 0.5 * random.i2i_token)
