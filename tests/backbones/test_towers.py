"""The towers against plain open_clip, and the second class token."""

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, at_end, end_positions
from hpl.backbones.trained import load_neck, load_trained, save_trained
from hpl.backbones.weights import build_clip, create_backbone, load_backbone, save_backbone
from hpl.config import Input, OpenClipBackbone
from hpl.files import HplError
from tests.support.hidden_token import encode_without_i2i_token
from tests.support.tiny import TINY

IMAGES = torch.randn(3, 3, 24, 12, generator=torch.Generator().manual_seed(1))
CAPTIONS = ["A man in red.", "A woman with a blue bag walks past the shop.", "x"]


def test_without_the_second_token_the_tower_is_open_clips(clip: CLIP) -> None:
    tokens = ImageTower(clip, task_routing=False)(IMAGES)
    assert tokens.shape == (3, 2 + 8, 16)
    torch.testing.assert_close(tokens[:, 0], clip.encode_image(IMAGES))
    torch.testing.assert_close(tokens[:, 1], tokens[:, 0])


def test_the_second_token_masked_out_leaves_v_t2i_as_it_was(clip: CLIP) -> None:
    expected = clip.encode_image(IMAGES)
    tower = ImageTower(clip, task_routing=True, i2i_token_init="copy", i2i_token_noise=0.5, seed=3)
    hidden, seen = encode_without_i2i_token(tower, IMAGES), tower(IMAGES)
    assert hidden.shape == seen.shape == (3, 2 + 8, 16)
    torch.testing.assert_close(hidden[:, 0], expected)
    assert (seen[:, 0] - expected).norm() / expected.norm() > 1e-3  # seen by the others, it shifts them
    assert not torch.allclose(seen[:, 0], seen[:, 1])


def test_an_exact_copy_is_the_same_token_twice(clip: CLIP) -> None:
    tokens = ImageTower(clip, task_routing=True, i2i_token_init="copy", i2i_token_noise=0.0)(IMAGES)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1])


def test_the_second_token_depends_on_its_seed_alone(clip: CLIP) -> None:
    def token(seed: int) -> torch.Tensor:
        return ImageTower(clip, task_routing=True, i2i_token_init="random", seed=seed).i2i_token

    torch.manual_seed(5)
    first = token(1)
    torch.manual_seed(6)
    assert torch.equal(first, token(1)) and not torch.equal(first, token(2))


def test_text_tower_is_open_clips_though_it_cuts_the_padding(clip: CLIP) -> None:
    ids = tokenize(CAPTIONS, 32)
    tokens, ends = TextTower(clip)(ids)
    assert tokens.shape[1] == int(ends.max()) + 1 < 32
    torch.testing.assert_close(at_end(tokens, ends), clip.encode_text(ids))


def test_end_of_text_of_a_caption_that_is_cut() -> None:
    ids = tokenize(["walks " * 100], 32)
    assert end_positions(ids).tolist() == [31]


def test_open_clip_itself_loads_a_backbone_folder(clip: CLIP, tmp_path) -> None:
    save_backbone(tmp_path, clip, TINY)
    loaded = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    ids = tokenize(CAPTIONS, 32)
    torch.testing.assert_close(loaded.encode_image(IMAGES), clip.encode_image(IMAGES))
    torch.testing.assert_close(loaded.encode_text(ids), clip.encode_text(ids))
    ours, config = load_backbone(tmp_path)
    assert config == TINY
    torch.testing.assert_close(ours.encode_image(IMAGES), clip.encode_image(IMAGES))


def test_a_trained_model_comes_back_with_both_tokens(clip: CLIP, tmp_path) -> None:
    images, texts = ImageTower(clip, task_routing=True, i2i_token_noise=0.5), TextTower(clip)
    save_trained(tmp_path, images, texts, {"clip": TINY, "task_routing": True})
    again, texts_again, description = load_trained(tmp_path)
    assert description["task_routing"] is True
    torch.testing.assert_close(again(IMAGES), images(IMAGES))
    ids = tokenize(CAPTIONS, 32)
    torch.testing.assert_close(texts_again(ids)[0], texts(ids)[0])


def test_the_neck_comes_back_as_a_scale_and_a_shift(clip: CLIP, tmp_path) -> None:
    torch.manual_seed(0)
    neck = torch.nn.BatchNorm1d(5)
    with torch.no_grad():
        for tensor in (neck.weight, neck.bias, neck.running_mean):
            tensor.normal_()
        neck.running_var.uniform_(0.5, 2)
    description = {"clip": TINY, "task_routing": True}
    save_trained(tmp_path, ImageTower(clip, task_routing=True), TextTower(clip), description, neck)
    scale, shift = load_neck(tmp_path)
    rows = torch.randn(4, 5)
    torch.testing.assert_close(rows * torch.from_numpy(scale) + torch.from_numpy(shift), neck.eval()(rows).detach())
    save_trained(tmp_path / "..", ImageTower(clip, task_routing=True), TextTower(clip), description)
    with pytest.raises(HplError, match="neck.safetensors: file not found; run the train stage again, or set evaluate.neck"):
        load_neck(tmp_path / "..")


def test_given_weights_from_a_file_are_resized_to_the_pictures(tmp_path) -> None:
    torch.manual_seed(0)
    source = open_clip.create_model("ViT-B-32").eval()
    torch.save(source.state_dict(), tmp_path / "clip.pt")
    choice = OpenClipBackbone(
        source="open_clip", model="ViT-B-32", weights=str(tmp_path / "clip.pt"), download=False, stride=None
    )
    model, config, _ = create_backbone(choice, Input(height=384, width=128, context_length=77))
    assert model.visual.grid_size == (12, 4) and config["vision_cfg"]["image_size"] == [384, 128]
    assert build_clip(config)(torch.zeros(1, 3, 384, 128))[0].shape == (1, 512)
    ids = tokenize(CAPTIONS, 77)
    torch.testing.assert_close(model.eval().encode_text(ids), source.encode_text(ids))
    given, made = source.visual.state_dict(), model.visual.state_dict()
    assert given.keys() == made.keys()
    for name, value in given.items():
        if name == "positional_embedding":
            assert torch.equal(made[name][0], value[0]) and made[name].shape == (1 + 48, 768)
        else:
            assert torch.equal(made[name], value), name


def test_unknown_weights_are_refused_by_name() -> None:
    choice = OpenClipBackbone(source="open_clip", model="ViT-B-32", weights="nowhere.pt", download=False, stride=None)
    with pytest.raises(HplError, match="'nowhere.pt': no such file, nor a tag of ViT-B-32"):
        create_backbone(choice, Input(height=64, width=32, context_length=77))


def test_a_tag_is_not_fetched_unless_asked() -> None:
    choice = OpenClipBackbone(source="open_clip", model="ViT-B-32", weights="openai", download=False, stride=None)
    with pytest.raises(HplError, match="set backbone.download: true to allow that"):
        create_backbone(choice, Input(height=64, width=32, context_length=77))
