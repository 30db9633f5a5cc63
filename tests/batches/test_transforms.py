"""Augmentation: every output is a legal change of its own input, drawn as often as it should be; normalisation is the formula."""

import numpy as np
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from torchvision import transforms

from hpl.backbones.encoding import normalise
from hpl.batches.transforms import FILL, augment

HEIGHT, WIDTH, PAD = 24, 12, 3
MEAN = torch.tensor(FILL, dtype=torch.uint8)[:, None, None]


def pictures(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def find(image: Tensor, result: Tensor, pad: int = PAD) -> tuple[bool, int, int, Tensor]:
    """How `result` came from `image`: flip, offset (y, x), and where it differs from that crop (H x W): the fewest pixels."""
    candidates = []
    for flip in (False, True):
        canvas = MEAN.expand(3, HEIGHT + 2 * pad, WIDTH + 2 * pad).clone()
        canvas[:, pad : pad + HEIGHT, pad : pad + WIDTH] = image.flip(-1) if flip else image
        for y in range(2 * pad + 1):
            for x in range(2 * pad + 1):
                differs = (canvas[:, y : y + HEIGHT, x : x + WIDTH] != result).any(dim=0)
                candidates.append((int(differs.sum()), flip, y - pad, x - pad, differs))
    return min(candidates, key=lambda candidate: candidate[0])[1:]


def test_without_erasing_each_picture_is_a_crop_of_itself_and_draws_its_own() -> None:
    images = pictures(1).expand(400, -1, -1, -1)
    found = [find(images[0], result) for result in augment(images, PAD, 0.0, 1)]
    assert not any(differs.any() for *_, differs in found)
    assert 160 < sum(flip for flip, *_ in found) < 240  # half of 400, four standard deviations
    for axis in (1, 2):
        counts = np.bincount([entry[axis] + PAD for entry in found], minlength=2 * PAD + 1)
        assert len(counts) == 7 and 29 < counts.min() and counts.max() < 86  # 400 / 7 = 57, standard deviation 7
    assert len({entry[:3] for entry in found}) > 80  # of 98: flip and both offsets are drawn apart
    assert torch.equal(augment(images[:1], 0, 0.0, 3).sort(dim=-1)[0], images[:1].sort(dim=-1)[0])


def test_erased_is_one_rectangle_of_the_mean_colour_within_bounds() -> None:
    images = pictures(300)
    erased = 0
    for image, result in zip(images, augment(images, PAD, 0.5, 2), strict=True):
        *_, differs = find(image, result)
        if differs.any():
            erased += 1
            rows, columns = torch.where(differs.any(dim=1))[0], torch.where(differs.any(dim=0))[0]
            box = result[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (box == MEAN).all()
            assert box[0].numel() <= 0.45 * HEIGHT * WIDTH  # 0.4, and sides rounded to whole pixels
    assert 100 < erased < 185  # half; an erased place within the border does not show


def test_rectangles_are_distributed_as_those_of_random_erasing() -> None:
    height, width = 96, 32
    images = torch.zeros(3000, 3, height, width, dtype=torch.uint8)
    ours = (augment(images, 0, 1.0, 5)[:, 0] != 0).float()
    erase = transforms.RandomErasing(1.0, scale=(0.02, 0.4), ratio=(0.3, 3.3), value=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack([erase(torch.zeros(1, height, width))[0] for _ in range(3000)])

    def figures(masks: Tensor) -> list[float]:
        heights, widths = masks.amax(dim=2).sum(dim=1), masks.amax(dim=1).sum(dim=1)
        assert torch.equal(heights * widths, masks.sum(dim=(1, 2)))  # a rectangle
        assert float((heights * widths).min()) > 0.015 * height * width
        tops, lefts = masks.amax(dim=2).argmax(dim=1).float(), masks.amax(dim=1).argmax(dim=1).float()
        return [float(value) for sides in (heights, widths, tops, lefts) for value in (sides.mean(), sides.std())]

    np.testing.assert_allclose(figures(ours), figures(theirs), rtol=0.06)


def test_random_by_seed_alone() -> None:
    images = pictures(16)
    before, state = images.clone(), torch.get_rng_state()
    first = augment(images, PAD, 0.5, 1)
    torch.manual_seed(99)
    assert torch.equal(first, augment(images, PAD, 0.5, 1)) and not torch.equal(first, augment(images, PAD, 0.5, 2))
    torch.set_rng_state(state)
    augment(images, PAD, 0.5, 3)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, before)
    assert first.dtype == torch.uint8 and first.shape == images.shape and first.is_contiguous()
    assert augment(images[:0], PAD, 0.5, 1).shape == (0, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_normalise_is_the_formula(count: int) -> None:
    images = pictures(count)
    mean, deviation = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    result = normalise(images)
    assert result.dtype == torch.float32 and result.is_contiguous()
    torch.testing.assert_close(result.double(), (images.double() / 255 - mean) / deviation, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_normalise_on_a_gpu_is_normalise_on_the_cpu() -> None:
    torch.testing.assert_close(normalise(pictures(5).cuda()).cpu(), normalise(pictures(5)), rtol=1e-6, atol=1e-6)
