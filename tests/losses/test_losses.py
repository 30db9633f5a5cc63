"""Each loss against a float64 loop written from the formula (tests/support/naive.py): values and gradients, then the degenerate
batches."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hpl.losses.alignment import instance_alignment_loss, instance_consistency_loss, prompt_regularisation_loss
from hpl.losses.contrast import identity_prompt_loss, prompt_contrast_losses
from hpl.losses.identity import i2i_identity_loss, t2i_identity_loss
from hpl.losses.sdm import similarity_distribution_loss
from hpl.losses.triplet import batch_hard_triplet_loss
from tests.support import naive

PIDS = [3, 3, 7, 1, 7, 3]  # several positives, and one picture without any


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(actual: Callable[..., Tensor], reference: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Same value and same gradient for every input, float32 against float64."""
    low = [value.float().requires_grad_() for value in inputs]
    high = [value.clone().requires_grad_() for value in inputs]
    got, expected = actual(*low), reference(*high)
    torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-6)
    got.backward(), expected.backward()
    for left, right in zip(low, high, strict=True):
        torch.testing.assert_close(left.grad.double(), right.grad, rtol=2e-4, atol=2e-6)


def test_sdm() -> None:
    def actual(images: Tensor, texts: Tensor) -> Tensor:
        return similarity_distribution_loss(images, texts, torch.tensor(PIDS), 0.3)

    check(actual, lambda images, texts: naive.sdm(images, texts, PIDS, 0.3), features(0, 6, 5), features(1, 6, 5))


def test_sdm_at_the_papers_temperature_is_finite_for_opposite_features() -> None:
    images = torch.eye(4)
    loss = similarity_distribution_loss(images, -images, torch.arange(4), 0.02)
    assert torch.isfinite(loss) and loss > 10


def test_sdm_of_a_perfect_match_is_almost_zero() -> None:
    loss = similarity_distribution_loss(torch.eye(4), torch.eye(4), torch.arange(4), 0.02)
    assert abs(float(loss)) < 1e-4


def test_identity_losses() -> None:
    labels = [0, 4, 2]
    check(
        lambda a, b: t2i_identity_loss(a, b, torch.tensor(labels)),
        lambda a, b: naive.identity_t2i(a, b, labels),
        features(0, 3, 5),
        features(1, 3, 5),
    )
    check(
        lambda a: i2i_identity_loss(a, torch.tensor(labels), 0.1), lambda a: naive.identity_i2i(a, labels, 0.1), features(2, 3, 5)
    )


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_triplet(scale: float, normalized: bool) -> None:
    """Of features as they are, ten times their length takes the hardest triplets out of the margin; of normalised ones it changes
    nothing."""

    def actual(images: Tensor) -> Tensor:
        return batch_hard_triplet_loss(images, torch.tensor(PIDS), 0.3, normalized)

    def naively(images: Tensor) -> Tensor:
        return naive.triplet([image / naive.norm(image) for image in images] if normalized else images, PIDS, 0.3)

    check(actual, naively, scale * features(0, 6, 5))


def test_triplet_counts_easy_anchors_as_zero() -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 0.1], [9.0, 0.0], [9.0, 9.0]])
    loss = batch_hard_triplet_loss(corners, torch.tensor([1, 1, 2, 2]), 0.3)
    # the two of person 1 are 0.1 apart and 9 from anyone else: zero.
    # Of person 2: 9 from each other, 9 and hypot(9, 8.9) from person 1
    expected = (0 + 0 + (9 - 9 + 0.3) + max(0, 9 - math.hypot(9, 8.9) + 0.3)) / 4
    assert float(loss) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_prompt_contrast_is_supervised_contrast_over_the_batch_with_one_prompt_a_sample(temperature: float) -> None:
    """Eqs. 8 and 9; the loop has one prompt for each sample, the function one for each identity."""
    present = sorted(set(PIDS))

    def reference(direction: int) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(images: Tensor, prompts: Tensor) -> Tensor:
            copies = [prompts[present.index(pid)] for pid in PIDS]
            anchors, others = ((copies, images), (images, copies))[direction]
            return naive.prompt_contrast(anchors, others, PIDS, temperature)

        return loss

    pids, prompt_pids = torch.tensor(PIDS), torch.tensor(present)
    for direction in (0, 1):
        check(
            lambda a, b, direction=direction: prompt_contrast_losses(a, b, pids, prompt_pids, temperature)[direction],
            reference(direction),
            features(0, 6, 5),
            features(1, 3, 5),
        )


@pytest.mark.parametrize("temperature", [0.02, 1.0])
def test_identity_prompt_loss(temperature: float) -> None:
    """Eq. 11, over all identities: two of the four are not in the batch, and still count. 1.0 is the printed form."""
    labels, table = [0, 3, 3], features(9, 4, 5)
    check(
        lambda a: identity_prompt_loss(a, table.float(), torch.tensor(labels), temperature),
        lambda a: naive.identity_prompt_loss(a, table, labels, temperature),
        features(0, 3, 5),
    )
    some = identity_prompt_loss(features(0, 3, 5), table[[0, 3]], torch.tensor([0, 1, 1]), temperature)
    assert float(identity_prompt_loss(features(0, 3, 5), table, torch.tensor(labels), temperature)) > float(some)


@pytest.mark.parametrize("normalized", [True, False])
def test_squared_distances(normalized: bool) -> None:
    """Eqs. 6 and 10."""

    def consistency(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return naive.squared_distance(a, b, normalized) + naive.squared_distance(c, d, normalized)

    inputs = features(0, 5, 4), features(1, 5, 4), features(2, 3, 4), features(3, 3, 4)
    check(lambda *four: instance_consistency_loss(*four, normalized), consistency, *inputs)

    def alignment(prompts: Tensor, others: Tensor) -> Tensor:
        return naive.squared_distance(prompts, others, normalized)

    check(lambda *pair: instance_alignment_loss(*pair, normalized), alignment, features(4, 3, 4), features(5, 3, 4))


def test_prompt_regularisation() -> None:
    """Eq. 12."""
    check(prompt_regularisation_loss, naive.frobenius, features(0, 3, 2, 4), features(1, 3, 2, 4))


def test_a_batch_without_anything_to_compare_gives_zero_with_a_gradient() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    empty = torch.zeros(0, 4, requires_grad=True)
    table = torch.randn(5, 4)
    losses = [
        similarity_distribution_loss(empty, empty, none),
        t2i_identity_loss(empty, empty, none),
        i2i_identity_loss(empty, none),
        identity_prompt_loss(empty, table, none),
        instance_consistency_loss(empty, empty, empty, empty),
        *prompt_contrast_losses(empty, empty, none, none),
        instance_alignment_loss(empty, empty),
        prompt_regularisation_loss(empty[:, None], empty[:, None]),
        batch_hard_triplet_loss(torch.randn(3, 4, requires_grad=True), torch.tensor([1, 2, 3])),
        batch_hard_triplet_loss(torch.randn(3, 4, requires_grad=True), torch.tensor([1, 1, 1])),
    ]
    for loss in losses:
        assert loss.item() == 0.0 and loss.requires_grad
    sum(losses).backward()


def test_a_batch_where_nobody_occurs_twice() -> None:
    """The triplet is zero; a pair is its own and only positive for the others, which become CLIP's contrast and a plain KL."""
    pids = [5, 2, 9, 4]
    images, texts = features(0, 4, 6), features(1, 4, 6)
    labels = torch.tensor(pids)

    def info_nce(anchors: Tensor, others: Tensor) -> Tensor:
        cosines = torch.nn.functional.normalize(anchors, dim=1) @ torch.nn.functional.normalize(others, dim=1).T
        return torch.nn.functional.cross_entropy(cosines / 0.1, torch.arange(4))

    for direction, expected in enumerate((info_nce(texts, images), info_nce(images, texts))):
        got = prompt_contrast_losses(images, texts, labels, labels, 0.1)[direction]
        torch.testing.assert_close(got.double(), expected)
    check(lambda a, b: similarity_distribution_loss(a, b, labels, 0.3), lambda a, b: naive.sdm(a, b, pids, 0.3), images, texts)
    assert float(batch_hard_triplet_loss(images, labels, 0.3)) == 0.0


def test_a_batch_of_one_person_alone_is_finite() -> None:
    """Nothing is a negative: the triplet is zero, the others of equal features are 0 and ln 4."""
    images, texts, labels = torch.ones(4, 6, requires_grad=True), torch.ones(4, 6, requires_grad=True), torch.full((4,), 7)
    sdm = similarity_distribution_loss(images, texts, labels, 0.02)
    text_to_image, image_to_text = prompt_contrast_losses(images, texts[:1], labels, torch.tensor([7]), 0.02)
    triplet = batch_hard_triplet_loss(images, labels)
    expected = [0.0, math.log(4), math.log(4), 0.0]
    for loss, value in zip((sdm, text_to_image, image_to_text, triplet), expected, strict=True):
        assert float(loss.detach()) == pytest.approx(value, abs=1e-5)
    (sdm + text_to_image + image_to_text + triplet).backward()
    assert images.grad.isfinite().all() and texts.grad.isfinite().all()


def test_the_same_picture_four_times_has_a_finite_gradient() -> None:
    """An identity with fewer than four pictures repeats some: a positive at distance zero."""
    one = features(0, 2, 5).float()
    images = one[[0, 0, 0, 0, 1, 1, 1, 1]].requires_grad_()
    labels = torch.tensor([3, 3, 3, 3, 8, 8, 8, 8])
    loss = batch_hard_triplet_loss(images, labels, margin=float((one[0] - one[1]).norm()) + 0.3)
    assert float(loss.detach()) == pytest.approx(0.3, abs=1e-4)
    loss.backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0
