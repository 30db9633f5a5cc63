"""Grad-CAM of both class tokens: against finite differences, with one patch that matters, and of pictures chosen by rule."""

import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from hpl.analysis.attention import explain, grad_cam
from hpl.backbones.towers import ImageTower, TextTower
from hpl.retrieval.features import Extractor
from tests.support.native_sets import CUHK, MARKET, build
from tests.support.pictures import picture, save
from tests.support.tiny import SIZE

ROWS, COLUMNS = 4, 2  # patches of tests.support.tiny.TINY
OWN = {"format": "folders", "folder": "people", "use": ["test"]}


def tower_of(clip: CLIP, *, task_routing: bool = True) -> ImageTower:
    return ImageTower(clip, task_routing=task_routing, i2i_token_noise=1.0).eval()


def similarity_from_last_block(tower: ImageTower, residual: Tensor, normed: Tensor, token: int, wanted: Tensor) -> Tensor:
    """cos(class token, wanted) of one picture, when the last block's attention reads `normed`."""
    visual = tower.visual
    block = visual.transformer.resblocks[-1]
    x = residual + block.attn(normed, normed, normed, need_weights=False)[0]
    x = x + block.mlp(block.ln_2(x))
    classes = visual.ln_post(x[0, token]) @ visual.proj
    return torch.dot(classes, wanted) / (classes.norm() * wanted.norm())


@torch.no_grad()
def naive_map(tower: ImageTower, image: Tensor, token: int, wanted: Tensor) -> np.ndarray:
    """Grad-CAM by the paper's formula, every slope by a central difference."""
    visual = tower.visual
    patches = visual.conv1(image[None]).flatten(2).transpose(1, 2)[0] + visual.positional_embedding[1:]
    classes = [visual.class_embedding + visual.positional_embedding[0], tower.i2i_token + tower.i2i_position]
    residual = visual.ln_pre(torch.cat([torch.stack(classes), patches]))[None]
    for block in visual.transformer.resblocks[:-1]:
        residual = block(residual)
    normed, step = visual.transformer.resblocks[-1].ln_1(residual), 1e-5
    num_patches, width = patches.shape
    slopes = np.zeros((num_patches, width))
    for patch in range(num_patches):
        for channel in range(width):
            values = []
            for sign in (1, -1):
                moved = normed.clone()
                moved[0, 2 + patch, channel] += sign * step
                values.append(similarity_from_last_block(tower, residual, moved, token, wanted).item())
            slopes[patch, channel] = (values[0] - values[1]) / (2 * step)
    found = np.zeros(num_patches)
    for patch in range(num_patches):
        for channel in range(width):
            weight = sum(slopes[other, channel] for other in range(num_patches)) / num_patches
            found[patch] += weight * normed[0, 2 + patch, channel].item()
    found = np.maximum(found, 0)
    return (found / found.max() if found.max() else found).reshape(ROWS, COLUMNS)


def extractor(clip: CLIP) -> Extractor:
    return Extractor(images=tower_of(clip), texts=TextTower(clip), size=SIZE, batch_size=2, device=torch.device("cpu"))


def test_maps_are_those_of_the_formula(clip: CLIP) -> None:
    tower = tower_of(clip).double()
    generator = torch.Generator().manual_seed(1)
    images, texts, partners = (torch.randn(3, *shape, generator=generator).double() for shape in ((3, 24, 12), (16,), (16,)))
    maps = grad_cam(tower, images, texts, partners)
    assert [tuple(each.shape) for each in maps] == [(3, ROWS, COLUMNS)] * 2
    for token, wanted in enumerate((texts, partners)):
        for number in range(3):
            expected = naive_map(tower, images[number], token, wanted[number])
            np.testing.assert_allclose(maps[token][number], expected, atol=1e-5)
    assert any(each.max() == 1 for each in maps[0]) and all(each.min() >= 0 for each in (*maps[0], *maps[1]))
    assert not torch.allclose(maps[0], maps[1])


def test_the_one_patch_that_matters_is_found(clip: CLIP) -> None:
    """Every other patch enters the last block as a vector of zeros."""
    tower = tower_of(deepcopy(clip))
    with torch.no_grad():
        tower.visual.positional_embedding[1:] = 0
        first = tower.visual.transformer.resblocks[0]
        for layer in (first.attn.out_proj, first.mlp.c_proj):
            layer.weight.zero_(), layer.bias.zero_()
    images = torch.zeros(2, 3, 24, 12)
    images[:, :, 12:18, 6:12] = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0))  # row 2, column 1
    wanted = torch.randn(16, generator=torch.Generator().manual_seed(1))
    for found in grad_cam(tower, images, torch.stack([wanted, -wanted]), torch.stack([wanted, -wanted])):
        assert (
            found.amax(dim=(1, 2)).sum() == 1
        )  # it speaks for one of two opposite vectors, and against the other: a map of zeros
        assert found.sum(dim=0).nonzero().tolist() == [[2, 1]]


def test_the_tower_is_left_as_it_was(clip: CLIP) -> None:
    tower = tower_of(clip)
    images, wanted = torch.randn(2, 3, 24, 12), torch.randn(2, 16)
    before = tower(images)
    grad_cam(tower, images, wanted, wanted)
    assert torch.equal(tower(images), before)
    assert all(parameter.grad is None for parameter in tower.parameters())
    assert not tower.visual.transformer.resblocks[-1].ln_1._forward_hooks


def test_without_task_routing_both_maps_are_of_the_one_token(clip: CLIP) -> None:
    images, wanted = torch.randn(2, 3, 24, 12), torch.randn(2, 16)
    left, right = grad_cam(tower_of(clip, task_routing=False), images, wanted, wanted)
    assert torch.equal(left, right) and left.shape == (2, ROWS, COLUMNS)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Five people; the third has one picture, the second's first picture has no caption."""
    for person in range(5):
        for number in range(1 if person == 2 else 3):
            file = save(picture(600 + 10 * person + number), tmp_path / "people" / f"p{person}" / f"{number}.png")
            if (person, number) != (1, 0):
                file.with_suffix(".txt").write_text(f"Person {person}, picture {number}.\nAgain.")
    return tmp_path / "people"


def test_pictures_are_chosen_by_rule(clip: CLIP, people: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(OWN,))
    towers = extractor(clip)
    found = explain(towers, tables, count=3)
    test = tables.images[tables.images["split"] == "test"]
    assert len(found["image_id"]) == min(3, (test.groupby("pid").size() > 1).sum()) > 0
    sentences = tables.captions.set_index("caption_id")
    for image, caption, partner in zip(found["image_id"], found["caption_id"], found["partner_image_id"], strict=True):
        assert sentences.loc[caption, "image_id"] == image != partner
        assert test.loc[image, "pid"] == test.loc[partner, "pid"]
        assert "picture" in sentences.loc[caption, "caption"]  # its first caption
    assert found["t2i"].shape == found["i2i"].shape == (len(found["image_id"]), ROWS, COLUMNS)
    again = explain(towers, tables, count=3)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_the_partner_is_another_picture_pixel_for_pixel(clip: CLIP, people: Path, tmp_path: Path) -> None:
    for person in (0, 1, 3, 4):  # all pictures of the last are one
        for number in (1, 2) if person == 4 else (1,):
            shutil.copy(people / f"p{person}" / "0.png", people / f"p{person}" / f"{number}.png")
    tables = build(tmp_path, tmp_path / "out", datasets=(OWN,), test_share=0.9)
    found = explain(extractor(clip), tables, count=5)
    pixels, person = (tables.images[name] for name in ("sha256", "person"))
    asked, partners = found["image_id"], found["partner_image_id"]
    assert len(asked) and "p4" not in set(person[asked]) and (person[asked].to_numpy() == person[partners].to_numpy()).all()
    assert (pixels[asked].to_numpy() != pixels[partners].to_numpy()).all()


def test_no_caption_set_or_no_second_picture_explains_nothing(clip: CLIP, cuhk: Path, market: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(CUHK, MARKET))  # its one test person has one picture
    found = explain(extractor(clip), tables)
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, 0)
    alone = build(tmp_path, tmp_path / "alone", datasets=(MARKET,))
    assert len(explain(extractor(clip), alone)["t2i"]) == 0
