"""Each loss against a float64 loop written from the formula: values and gradients, then the degenerate batches."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hpl.losses.alignment import instance_alignment_losses, instance_consistency_loss, prompt_regularisation_loss
from hpl.losses.contrast import identity_prompt_loss, prompt_contrast_losses
from hpl.losses.identity import i2i_identity_loss, t2i_identity_loss
from hpl.losses.sdm import similarity_distribution_loss
from hpl.losses.triplet import batch_hard_triplet_loss

PIDS = [3, 3, 7, 1, 7, 3]


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


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
    def reference(images: Tensor, texts: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for queries, keys in ((texts, images), (images, texts)):
            for i in range(len(PIDS)):
                exps = [torch.exp(cosine(queries[i], key) / 0.3) for key in keys]
                positives = sum(PIDS[i] == PIDS[j] for j in range(len(PIDS)))
                for j in range(len(PIDS)):
                    p = exps[j] / sum(exps)
                    q = float(PIDS[i] == PIDS[j]) / positives
                    total = total + p * (torch.log(p) - math.log(q + 1e-8)) / len(PIDS)
        return total

    check(
        lambda a, b: similarity_distribution_loss(a, b, torch.tensor(PIDS), 0.3), reference, features(0, 6, 5), features(1, 6, 5)
    )


def test_sdm_at_the_papers_temperature_is_finite_for_opposite_features() -> None:
    images = torch.eye(4)
    loss = similarity_distribution_loss(images, -images, torch.arange(4), 0.02)
    assert torch.isfinite(loss) and loss > 10


def test_sdm_of_a_perfect_match_is_almost_zero() -> None:
    loss = similarity_distribution_loss(torch.eye(4), torch.eye(4), torch.arange(4), 0.02)
    assert abs(float(loss)) < 1e-4


def naive_cross_entropy(logits: Tensor, label: int, smoothing: float = 0.0) -> Tensor:
    log_probabilities = [logit - torch.log(sum(torch.exp(other) for other in logits)) for logit in logits]
    return -(1 - smoothing) * log_probabilities[label] - smoothing * sum(log_probabilities) / len(log_probabilities)


def test_identity_losses() -> None:
    labels = torch.tensor([0, 4, 2])

    def t2i(images: Tensor, texts: Tensor) -> Tensor:
        return sum(naive_cross_entropy(part[i], int(labels[i])) for part in (images, texts) for i in range(3)) / 6

    check(lambda a, b: t2i_identity_loss(a, b, labels), t2i, features(0, 3, 5), features(1, 3, 5))
    check(
        lambda a: i2i_identity_loss(a, labels, 0.1),
        lambda a: sum(naive_cross_entropy(a[i], int(labels[i]), 0.1) for i in range(3)) / 3,
        features(2, 3, 5),
    )


def test_triplet() -> None:
    def reference(images: Tensor) -> Tensor:
        def distance(i: int, j: int) -> Tensor:
            return (images[i] - images[j]).square().sum().sqrt()

        terms = []
        for i, pid in enumerate(PIDS):
            positives = [distance(i, j) for j, other in enumerate(PIDS) if other == pid and j != i]
            negatives = [distance(i, j) for j, other in enumerate(PIDS) if other != pid]
            if positives:  # pid 1 has one picture: no triplet
                terms.append(torch.clamp(max(positives) - min(negatives) + 0.3, min=0))
        assert len(terms) == 5
        return sum(terms) / len(terms)

    check(lambda a: batch_hard_triplet_loss(a, torch.tensor(PIDS), 0.3), reference, features(0, 6, 5))


def test_triplet_counts_easy_anchors_as_zero() -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 0.1], [9.0, 0.0], [9.0, 9.0]])
    loss = batch_hard_triplet_loss(corners, torch.tensor([1, 1, 2, 2]), 0.3)
    expected = (
        2 * 0 + (9 - math.hypot(9, 0.1) + 0.3 if math.hypot(9, 0.1) < 9 else 9 - 9.0 + 0.3) + max(0, 9 - math.hypot(9, 8.9) + 0.3)
    ) / 4
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_prompt_contrast_is_supervised_contrast_over_the_batch_with_one_prompt_a_sample() -> None:
    present = sorted(set(PIDS))

    def reference(direction: int) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(images: Tensor, prompts: Tensor) -> Tensor:
            copies = torch.stack([prompts[present.index(pid)] for pid in PIDS])
            anchors, others = ((copies, images), (images, copies))[direction]
            total = torch.zeros((), dtype=torch.float64)
            for i, pid in enumerate(PIDS):
                logits = [cosine(anchors[i], other) / 0.2 for other in others]
                positives = [j for j, other in enumerate(PIDS) if other == pid]
                total = total + sum(naive_cross_entropy(torch.stack(logits), j) for j in positives) / len(positives)
            return total / len(PIDS)

        return loss

    pids, prompt_pids = torch.tensor(PIDS), torch.tensor(present)
    for direction in (0, 1):
        check(
            lambda a, b, direction=direction: prompt_contrast_losses(a, b, pids, prompt_pids, 0.2)[direction],
            reference(direction),
            features(0, 6, 5),
            features(1, 3, 5),
        )


def test_identity_prompt_loss() -> None:
    labels = torch.tensor([0, 3, 3])

    def reference(images: Tensor) -> Tensor:
        prompts = features(9, 4, 5)
        rows = [torch.stack([cosine(image, prompt) / 0.02 for prompt in prompts]) for image in images]
        return sum(naive_cross_entropy(row, int(label)) for row, label in zip(rows, labels, strict=True)) / 3

    check(lambda a: identity_prompt_loss(a, features(9, 4, 5).float(), labels, 0.02), reference, features(0, 3, 5))


@pytest.mark.parametrize("normalized", [True, False])
def test_squared_distances(normalized: bool) -> None:
    def distance(left: Tensor, right: Tensor) -> Tensor:
        if normalized:
            left, right = left / left.square().sum().sqrt(), right / right.square().sum().sqrt()
        return (left - right).square().sum()

    def consistency(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return sum(distance(a[i], b[i]) for i in range(5)) / 5 + sum(distance(c[i], d[i]) for i in range(3)) / 3

    inputs = features(0, 5, 4), features(1, 5, 4), features(2, 3, 4), features(3, 3, 4)
    check(lambda *parts: instance_consistency_loss(*parts, normalized), consistency, *inputs)

    def text_guided(v_prompt: Tensor, t_prompt: Tensor, v: Tensor, t: Tensor) -> Tensor:
        return sum(distance(t_prompt[i], v[i]) + 0 * (v_prompt[i] + t[i]).sum() for i in range(3)) / 3

    def vision_guided(v_prompt: Tensor, t_prompt: Tensor, v: Tensor, t: Tensor) -> Tensor:
        return sum(distance(v_prompt[i], t[i]) + 0 * (t_prompt[i] + v[i]).sum() for i in range(3)) / 3

    inputs = [features(seed, 3, 4) for seed in range(4)]
    for half, reference in enumerate((text_guided, vision_guided)):
        check(
            lambda *parts, half=half: instance_alignment_losses(*parts, normalized)[half] + 0 * sum(part.sum() for part in parts),
            reference,
            *inputs,
        )


def test_prompt_regularisation() -> None:
    def reference(text: Tensor, image: Tensor) -> Tensor:
        total = sum((text[b, k, w] - image[b, k, w]) ** 2 for b in range(3) for k in range(2) for w in range(4))
        return total / 3

    check(prompt_regularisation_loss, reference, features(0, 3, 2, 4), features(1, 3, 2, 4))


def test_a_batch_without_anything_to_compare_gives_zero_with_a_gradient() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    empty = torch.zeros(0, 4, requires_grad=True)
    table = torch.randn(5, 4)
    losses = [
        similarity_distribution_loss(empty, empty, none),
        t2i_identity_loss(empty, empty, none),
        i2i_identity_loss(empty, none),
        identity_prompt_loss(empty, table, none),
        *prompt_contrast_losses(empty, empty, none, none),
        *instance_alignment_losses(empty, empty, empty, empty),
        prompt_regularisation_loss(empty[:, None], empty[:, None]),
        batch_hard_triplet_loss(torch.randn(3, 4, requires_grad=True), torch.tensor([1, 2, 3])),
        batch_hard_triplet_loss(torch.randn(3, 4, requires_grad=True), torch.tensor([1, 1, 1])),
    ]
    for loss in losses:
        assert loss.item() == 0.0 and loss.requires_grad
    sum(losses).backward()
