"""Weights in every layout that people have, made here, against plain open_clip; files that are none; overlapping patches."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP, resize_pos_embed
from safetensors.torch import save_file
from torch import Tensor, nn

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.trained import load_trained, save_trained
from hpl.backbones.weight_files import read_weight_file
from hpl.backbones.weights import Account, build_clip, create_backbone, load_backbone, save_backbone, scratch_config, source_grid
from hpl.config import Input, OpenClipBackbone, ScratchBackbone
from hpl.files import HplError

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 16, "head_width": 8, "patch_size": 6},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
}
SQUARE = Input(height=24, width=24, context_length=16)
IDS = tokenize(["A man in red.", "A woman with a blue bag.", "x"], 16)


SCRATCH = ScratchBackbone(
    source="scratch", embed_dim=16, vision_width=16, vision_layers=1, vision_heads=2, patch_size=6, stride=None, text_width=24,
    text_layers=1, text_heads=2,
)  # fmt: skip


def pictures(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip knows `Small` (GELU) and `Small-quickgelu`."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", SMALL)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-quickgelu", SMALL | {"quick_gelu": True})


@cache
def plain(quick_gelu: bool = True, size: int | tuple[int, int] = 24) -> CLIP:
    """open_clip's own CLIP, random but the same each time, in numbers that half precision holds exactly."""
    torch.manual_seed(0)
    config = deepcopy(SMALL) | {"quick_gelu": quick_gelu}
    config["vision_cfg"]["image_size"] = size
    model = CLIP(**config).eval()
    with torch.no_grad():
        model.text_projection.normal_(std=0.2)
        model.logit_scale.fill_(3.0)
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


def choose(
    weights: object, model: str = "Small-quickgelu", stride: int | None = None, download: bool = False
) -> OpenClipBackbone:
    return OpenClipBackbone(source="open_clip", model=model, weights=str(weights), download=download, stride=stride)


def assert_same(ours: CLIP, theirs: CLIP, size: Input = SQUARE) -> None:
    """Both towers give what open_clip's model gives, to the last bit: in its own methods, and as HPL runs them."""
    images = pictures(size.height, size.width)
    ids = IDS[:, : size.context_length]
    ours.eval()
    with torch.no_grad():
        assert torch.equal(ours.encode_image(images), theirs.encode_image(images))
        assert torch.equal(ours.encode_text(ids), theirs.encode_text(ids))
        torch.testing.assert_close(ImageTower(ours, task_routing=False)(images)[:, 0], theirs.encode_image(images))
        features, ends = TextTower(ours)(ids)
        torch.testing.assert_close(features[torch.arange(3), ends], theirs.encode_text(ids))


class Holder(nn.Module):
    """A module of a script that holds the tensors of a state dict, and does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def write_openai(state: dict[str, Tensor], path: Path, resolution: int = 24) -> Path:
    """As OpenAI ships its weights: TorchScript, half precision, three numbers among the buffers."""
    root = Holder()
    for name, value in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, Holder())
            module = module._modules[parent]
        module.register_parameter(leaf, nn.Parameter(value.half()))
    for name, number in {"input_resolution": resolution, "context_length": 16, "vocab_size": 49408}.items():
        root.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(root).save(str(path))
    return path


def write_torch(content: object, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def openai_again(change: Callable[[Tensor], Tensor] = lambda value: value, prefix: str = "", *outside: str) -> Callable:
    """OpenAI's state dict as a user saves it again: `torch.save(torch.jit.load(file).state_dict())` and its like."""

    def write(state: dict[str, Tensor], path: Path) -> Path:
        write_openai(state, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.jit.load(path, map_location="cpu").state_dict()
        content = {f"{prefix}{name}": change(value).clone() for name, value in content.items()}
        if "safetensors" in outside:
            save_file(content, path)
            return path
        for key in outside:
            content = {"epoch": 3, key: content}
        return write_torch(content, path)

    return write


def irra(state: dict[str, Tensor], prefix: str = "") -> dict:
    """As the IRRA family saves a training: CLIP without its scale, in part in half precision; heads; an optimizer."""
    clip = {
        f"{prefix}base_model.{name}": value.half() if value.dim() > 1 else value.clone()
        for name, value in state.items()
        if name != "logit_scale"
    }
    heads = {
        f"{prefix}{name}": torch.ones(2, 2)
        for name in (
            "classifier.weight",
            "classifier.bias",
            "cross_attn.in_proj_weight",
            "mlm_head.dense.weight",
            "ln_pre_t.weight",
        )
    }
    optimizer = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 1e-5, "params": [0]}],
    }
    return {"model": clip | heads, "optimizer": optimizer, "scheduler": {"milestones": (20, 50), "mode": "cosine"}, "epoch": 31}


LAYOUTS = {
    "openai": (write_openai, "OpenAI's TorchScript archive"),
    "open_clip .pt": (write_torch, "PyTorch file"),
    "legacy .pt": (lambda state, path: write_torch(state, path, legacy=True), "PyTorch file"),
    "open_clip training": (
        lambda state, path: write_torch({"epoch": 1, "state_dict": {f"module.{name}": v for name, v in state.items()}}, path),
        "PyTorch file",
    ),
    "open_clip custom text": (
        lambda state, path: write_torch(
            {name if name.startswith(("visual.", "logit")) else f"text.{name}": value for name, value in state.items()}, path
        ),
        "PyTorch file",
    ),
    "openai saved again": (openai_again(), "PyTorch file, OpenAI's state dict"),
    "openai as floats": (openai_again(torch.Tensor.float), "PyTorch file, OpenAI's state dict"),
    "openai in halves alone": (openai_again(torch.Tensor.half), "PyTorch file, OpenAI's state dict"),
    "openai of a card": (openai_again(lambda value: value, "module."), "PyTorch file, OpenAI's state dict"),
    "openai in state_dict": (openai_again(lambda value: value, "", "state_dict"), "PyTorch file, OpenAI's state dict"),
    "openai in model": (
        openai_again(lambda value: value, "_orig_mod.module.", "state_dict", "model"), "PyTorch file, OpenAI's state dict"
    ),
    "openai safetensors": (
        openai_again(lambda value: value, "", "safetensors"), "safetensors file, OpenAI's state dict"
    ),
    "safetensors": (lambda state, path: save_file(state, path) or path, "safetensors file"),
    "irra": (lambda state, path: write_torch(irra(state), path), "PyTorch file, names of the IRRA family"),
    "irra, two cards": (lambda state, path: write_torch(irra(state, "module."), path), "PyTorch file, names of the IRRA family"),
    "irra safetensors": (
        lambda state, path: save_file(irra(state)["model"], path) or path,
        "safetensors file, names of the IRRA family",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_features_of_plain_open_clip(layout: str, tmp_path: Path) -> None:
    write, named = LAYOUTS[layout]
    expected = plain()
    path = write(
        {name: value.detach() for name, value in expected.state_dict().items()}, tmp_path / "weights"
    )  # no suffix to go by
    model, config, account = create_backbone(choose(path), SQUARE)
    assert_same(model, expected)
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in model.parameters())
    assert account.weights == str(path) and account.layout == named and not account.resized
    told = "openai" in layout or "irra" in layout
    assert len(account.notes) == (not told)  # that the activation is an assumption
    if "irra" in layout:
        assert account.missing == ["logit_scale"] and float(model.logit_scale.detach()) == pytest.approx(2.659, abs=1e-3)
        heads = [name.removeprefix("module.") for name in account.unexpected]
        assert heads == [
            "classifier.bias",
            "classifier.weight",
            "cross_attn.in_proj_weight",
            "ln_pre_t.weight",
            "mlm_head.dense.weight",
        ]
        assert "5 tensors left aside: classifier (2), cross_attn (1), ln_pre_t (1), mlm_head (1)" in account.lines()
    else:
        assert not account.missing and not account.unexpected and float(model.logit_scale.detach()) == 3.0


@pytest.mark.parametrize("layout", ["open_clip .pt", "open_clip training", "safetensors"])
def test_gelu_too_and_open_clip_reads_the_same_file_alike(layout: str, tmp_path: Path) -> None:
    path = LAYOUTS[layout][0](plain(quick_gelu=False).state_dict(), tmp_path / "weights.safetensors")
    if layout != "safetensors":
        path = path.rename(tmp_path / "weights.pt")
    model, config, _ = create_backbone(choose(path, "Small"), SQUARE)
    assert_same(model, open_clip.create_model("Small", pretrained=str(path)).eval())
    assert not torch.equal(model.encode_text(IDS), plain(quick_gelu=True).encode_text(IDS))


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if "openai" in layout])
def test_openais_weights_are_known_in_every_container_and_tell_their_grid(layout: str, tmp_path: Path) -> None:
    """Plain open_clip's GELU would give other features without a word."""
    path = LAYOUTS[layout][0](plain().state_dict(), tmp_path / "weights")
    assert read_weight_file(path).from_openai and read_weight_file(path).resolution == 24
    with pytest.raises(HplError, match="OpenAI's weights, which want QuickGELU; expected backbone.model: Small-quickgelu"):
        create_backbone(choose(path, "Small"), SQUARE)


def test_a_part_of_openais_numbers_decides_nothing_and_odd_ones_are_no_crash(tmp_path: Path) -> None:
    state = plain().state_dict()
    file = read_weight_file(write_torch(state | {"input_resolution": torch.tensor(24)}, tmp_path / "some.pt"))
    assert not file.from_openai and file.state.keys() == state.keys()
    numbers = {"context_length": torch.tensor(16), "vocab_size": torch.tensor(49408)}
    for side in (torch.tensor(float("nan")), torch.ones(2)):
        file = read_weight_file(write_torch(state | numbers | {"input_resolution": side}, tmp_path / "odd.pt"))
        assert file.from_openai and file.resolution is None


def test_an_activation_that_the_file_does_not_tell_is_said_to_be_an_assumption(tmp_path: Path) -> None:
    """The same bytes do for both models, a stripped state dict of OpenAI's too: each gives features of its own."""
    path = write_torch(plain().state_dict(), tmp_path / "clip.pt")
    for name, quick, text in (
        ("Small", False, "taken for GELU, as Small has it. If it was trained with QuickGELU (OpenAI, DFN, MetaCLIP), set "
         "backbone.model: Small-quickgelu"),
        ("Small-quickgelu", True, "taken for QuickGELU, as Small-quickgelu has it. If it was trained with GELU "
         "(most of open_clip), set backbone.model: Small"),
    ):  # fmt: skip
        model, config, account = create_backbone(choose(path, name), SQUARE)
        assert_same(model, plain(quick_gelu=quick))
        assert account.notes == [f"the file does not tell its activation: {text}"] == account.lines()[-1:]
        save_backbone(tmp_path, model, config, account)
        assert json.loads((tmp_path / "account.json").read_text())["notes"] == account.notes


def test_openais_archive_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    path = write_openai(plain().state_dict(), tmp_path / "clip.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(path, map_location="cpu").state_dict()
    file = read_weight_file(path)
    assert file.resolution == 24 and expected.keys() - file.state.keys() == {"input_resolution", "context_length", "vocab_size"}
    for name, value in file.state.items():
        assert value.dtype == torch.float16 and torch.equal(value, expected[name]), name


def test_no_code_of_an_archive_runs(tmp_path: Path) -> None:
    class Hook(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.training = True

        @torch.jit.export
        def __getstate__(self) -> tuple[int, bool]:
            return 1, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[int, bool]) -> None:
            raise RuntimeError("run")

        def forward(self, x: Tensor) -> Tensor:
            return x

    class Root(Holder):
        def __init__(self) -> None:
            super().__init__()
            self.hook, self.linear = Hook(), nn.Linear(2, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Root()).save(str(tmp_path / "hook.pt"))
        with pytest.raises(torch.jit.Error, match="RuntimeError: run"):
            torch.jit.load(tmp_path / "hook.pt")
    assert sorted(read_weight_file(tmp_path / "hook.pt").state) == ["linear.bias", "linear.weight"]


@pytest.mark.parametrize("script", [False, True], ids=["torch.save", "TorchScript"])
def test_one_wrong_bit_in_an_archive_is_found(script: bool, tmp_path: Path) -> None:
    """torch.load itself does not compare checksums."""
    path = tmp_path / "weights.pt"
    write_openai(plain().state_dict(), path) if script else write_torch(plain().state_dict(), path)
    data, value = bytearray(path.read_bytes()), plain().state_dict()["visual.proj"]
    at = data.index((value.half() if script else value).numpy().tobytes()[:64])
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(HplError, match="damaged, or no file of weights"):
        read_weight_file(path)


def test_an_archive_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = write_torch({"visual.proj": torch.zeros(1 << 22)}, tmp_path / "weights.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(HplError, match="its members are compressed or overlap; expected them as torch.save writes them"):
        read_weight_file(path)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = write_torch({"visual.proj": torch.zeros(1).expand(10**9)}, tmp_path / "weights.pt")
    with pytest.raises(HplError, match="visual.proj repeats few numbers many times"):
        read_weight_file(path)


@pytest.mark.parametrize("side", [float("nan"), float("inf"), [24, 24]])
def test_a_resolution_that_is_no_number_is_none(side: object, tmp_path: Path) -> None:
    path = write_openai(plain().state_dict(), tmp_path / "weights.pt", side)
    assert read_weight_file(path).resolution is None


DESCRIBED = {
    "another tower": {"vision_cfg": {"timm_model_name": "resnet50", "timm_model_pretrained": True}},
    "another text tower": {"text_cfg": {"hf_model_name": "bert-base-uncased", "layers": 1}},
    "wide": {"vision_cfg": {"width": 2**30}},
    "deep": {"text_cfg": {"layers": 10**9}},
    "long": {"text_cfg": {"context_length": 10**9}},
    "no patches": {"vision_cfg": {"patch_size": 0}},
    "no number": {"embed_dim": "many"},
    "unknown": {"colour": "red"},
}


@pytest.mark.parametrize("fault", DESCRIBED)
def test_a_folder_that_describes_another_model_is_refused(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything large is made, and without asking the network for a tower."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    config, model = scratch_config(SCRATCH, SQUARE), build_clip(scratch_config(SCRATCH, SQUARE))
    for name in ("backbone", "model"):
        (tmp_path / name).mkdir()
    save_backbone(tmp_path / "backbone", model, config)
    save_trained(
        tmp_path / "model", ImageTower(model, task_routing=True), TextTower(model), {"clip": config, "task_routing": True}
    )
    for file, key, load in (
        ("backbone/open_clip_config.json", "model_cfg", load_backbone),
        ("model/model.json", "clip", load_trained),
    ):
        load((tmp_path / file).parent)
        content = json.loads((tmp_path / file).read_text())
        for section, change in DESCRIBED[fault].items():
            content[key][section] = content[key][section] | change if isinstance(change, dict) else change
        (tmp_path / file).write_text(json.dumps(content))
        with pytest.raises(HplError, match="damaged, or of another version|no plain CLIP ViT|no ViT of open_clip's own"):
            load((tmp_path / file).parent)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"3", b'{"model_cfg": 1, "clip": 1}', b'{"clip": {}, "task_routing": 1}', b"{"]
)
def test_a_damaged_folder_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    model = build_clip(scratch_config(SCRATCH, SQUARE))
    save_backbone(tmp_path, model, scratch_config(SCRATCH, SQUARE))
    save_trained(tmp_path, ImageTower(model, task_routing=True), TextTower(model), {})
    for name, load in (("open_clip_config.json", load_backbone), ("model.json", load_trained)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HplError) as caught:
            load(tmp_path)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_openais_weights_want_quick_gelu(tmp_path: Path) -> None:
    path = write_openai(plain().state_dict(), tmp_path / "ViT-S.pt")
    with pytest.raises(HplError, match="OpenAI's weights, which want QuickGELU; expected backbone.model: Small-quickgelu"):
        create_backbone(choose(path, "Small"), SQUARE)
    path = write_torch(irra(plain().state_dict()), tmp_path / "irra.pth")
    _, _, account = create_backbone(choose(path, "Small"), SQUARE)
    assert account.notes == ["IRRA's code uses QuickGELU, Small does not; expected backbone.model: Small-quickgelu"]


# Positions


def test_irra_at_24_by_8_patches(tmp_path: Path) -> None:
    """Its own grid is kept; another one is made from it, although the file does not tell which it has."""
    expected = plain(size=(144, 48))
    path = write_torch(irra(expected.state_dict()), tmp_path / "irra.pth")
    size = Input(height=144, width=48, context_length=16)
    model, config, account = create_backbone(choose(path), size)
    assert_same(model, expected, size)
    assert not account.resized and not account.notes
    model, config, account = create_backbone(choose(path), Input(height=120, width=36, context_length=12))
    assert account.resized == {"positional_embedding": [[16], [12]], "visual.positional_embedding": [[24, 8], [20, 6]]}
    table, given = model.visual.positional_embedding, expected.visual.positional_embedding
    assert torch.equal(table[0], given[0]) and table.shape == (1 + 20 * 6, 16)
    assert torch.equal(model.positional_embedding, expected.positional_embedding[:12])
    assert "visual.positional_embedding: 24 x 8 to 20 x 6" in account.lines()


def test_a_table_is_resized_as_open_clip_resizes_squares(tmp_path: Path) -> None:
    path = write_openai(plain().state_dict(), tmp_path / "clip.pt")
    size = Input(height=42, width=42, context_length=16)
    model, _, account = create_backbone(choose(path), size)
    expected, state = deepcopy(plain(size=42)), plain().state_dict()
    resize_pos_embed(state, expected)
    expected.load_state_dict(state)
    assert account.resized == {"visual.positional_embedding": [[4, 4], [7, 7]]}
    assert_same(model, expected, size)


@pytest.mark.parametrize(
    ("count", "grid", "native", "expected", "note"),
    [
        (196, (24, 8), (14, 14), (14, 14), ""),
        (576, (24, 8), (14, 14), (24, 24), ""),  # trained at another square
        (192, (24, 8), None, (24, 8), ""),
        (192, (16, 8), None, (24, 8), "they might be 16 x 12"),  # both as far from 2:1: the taller
        (310, (24, 8), None, (31, 10), ""),  # 384 x 128 at stride 12
        (144, (18, 8), None, (18, 8), "144 patch positions taken for 18 x 8; they might be 12 x 12"),
        (64, (16, 4), (8, 8), (8, 8), "might be 16 x 4"),
        (64, (16, 4), None, (16, 4), "might be 8 x 8"),
        (7, (24, 8), (14, 14), (7, 1), ""),
        (1, (24, 8), (14, 14), (1, 1), ""),
    ],
)
def test_which_grid_a_table_has(count: int, grid: tuple, native: tuple | None, expected: tuple, note: str) -> None:
    found, remark = source_grid(count, grid, native)
    assert found == expected
    assert (note in remark) if note else not remark


def test_pixels_that_no_patch_sees_are_told(tmp_path: Path) -> None:
    path = write_torch(plain().state_dict(), tmp_path / "clip.pt")
    _, _, account = create_backbone(choose(path), Input(height=27, width=24, context_length=16))
    assert account.notes[1:] == ["3 rows and 0 columns of pixels, at the bottom and the right, lie in no patch"]


# Files that are none


class Harmful:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def harmful_zip(path: Path, mark: Path, script: bool) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Harmful(mark)}, protocol=2))
        archive.writestr("archive/version", "3\n")
        if script:
            archive.writestr("archive/constants.pkl", pickle.dumps((), protocol=2))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "weights.pt"
    pickle.loads(pickle.dumps(Harmful(mark)))
    assert mark.exists(), "the test's own pickle does nothing"
    mark.unlink()
    refused = "holds an object of [a-z._A-Z]+, which only the code that wrote it could rebuild|Unsupported operand"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Harmful(mark), protocol=2)),
        lambda: path.write_bytes(pickle.dumps(Harmful(mark), protocol=5)),
        lambda: write_torch({"model": Harmful(mark)}, path),
        lambda: write_torch({"model": Harmful(mark)}, path, legacy=True),
        lambda: harmful_zip(path, mark, script=False),
        lambda: harmful_zip(path, mark, script=True),
    ):
        path.unlink(missing_ok=True)
        write()
        with pytest.raises(HplError, match=refused) as caught:
            create_backbone(choose(path), SQUARE)
        assert not mark.exists() and "\n" not in str(caught.value)


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state = plain().state_dict() | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in state.items() if value is not None}


FAULTS = {
    "empty": (b"", "no weights; expected a TorchScript archive, .* but the file is empty"),
    "html": (b"<!DOCTYPE html><html>", "no weights; .* but it begins with b'<!DOCTYPE html><html>'"),
    "zip": ("zip", "damaged, or no file of weights"),
    "half a zip": ((write_torch, 0.5), "damaged, or no file of weights"),
    "half a script": ((write_openai, 0.5), "damaged, or no file of weights"),
    "half an old file": ((LAYOUTS["legacy .pt"][0], 0.5), "damaged, or no file of weights"),
    "half a safetensors file": ((LAYOUTS["safetensors"][0], 0.5), "damaged, or no file of weights"),
    "a bit of a safetensors file": ((LAYOUTS["safetensors"][0], 0.001), "damaged, or no file of weights"),
    "no dictionary": ([1, 2], "a PyTorch file without a state dict; it holds nothing"),
    "no tensors": ({"epoch": 3, "model": {"args": "x"}}, "a PyTorch file without a state dict; it holds args"),
    "another model": (
        {"conv1.weight": torch.ones(2), "fc.bias": torch.ones(1)},
        r"lacks 61 of the 62 tensors of Small-quickgelu \(ln_final.bias, ln_final.weight, positional_embedding, \.\.\.\), "
        r"but has conv1.weight, fc.bias$",
    ),
    "a tensor short": (changed(ln_final__bias=None), r"lacks 1 of the 62 tensors of Small-quickgelu \(ln_final.bias\)$"),
    "other width": (changed(ln_final__bias=torch.ones(7)), "ln_final.bias is 7; expected 8 for Small-quickgelu"),
    "other patches": (
        changed(visual__conv1__weight=torch.ones(16, 3, 8, 8)),
        "visual.conv1.weight is 16 x 3 x 8 x 8; expected 16 x 3 x 6 x 6",
    ),
    "other table": (
        changed(visual__positional_embedding=torch.ones(17, 8)),
        "visual.positional_embedding is 17 x 8; expected 17 x 16",
    ),
    "class alone": (
        changed(visual__positional_embedding=torch.ones(1, 16)),
        "visual.positional_embedding is 1 x 16; expected 17 x 16",
    ),
    "fewer tokens": (
        changed(positional_embedding=torch.ones(8, 8)),
        "input.context_length = 16: .* has positions for 8 tokens",
    ),
    "deeper": (
        changed(transformer__resblocks__2__ln_1__weight=torch.ones(8)),
        "weights of a deeper model than Small-quickgelu, which has no transformer.resblocks.2.ln_1.weight",
    ),
    "whole numbers": (changed(ln_final__bias=torch.ones(8, dtype=torch.int64)), "ln_final.bias is torch.int64"),
    "sparse": (changed(ln_final__bias=torch.ones(8).to_sparse()), "ln_final.bias is torch.float32, torch.sparse_coo"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_do_is_named_in_one_line(fault: str, tmp_path: Path) -> None:
    content, message = FAULTS[fault]
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("photo.txt", "no weights")
    elif isinstance(content, tuple):
        write, share = content
        write(plain().state_dict(), path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    else:
        torch.save(content, path)
    with pytest.raises(HplError, match=message) as caught:
        create_backbone(choose(path), SQUARE)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """Small whole files of each container."""
    folder = tmp_path_factory.mktemp("samples")
    state = {"a.weight": torch.ones(2, 3), "b": torch.arange(4.0)}
    write_openai(state, folder / "0"), write_torch(state, folder / "1"), write_torch(state, folder / "2", legacy=True)
    save_file(state, folder / "3")
    return folder / "broken", [(folder / str(number)).read_bytes() for number in range(4)]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_an_error_or_harmless(samples: tuple[Path, list[bytes]], data: st.DataObject) -> None:
    path, files = samples
    content = bytearray(data.draw(st.sampled_from(files)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        read_weight_file(path)
    except HplError as error:
        assert "\n" not in str(error)


def test_models_that_hpl_does_not_run_are_refused() -> None:
    for name, message in {
        "ViT-L-14-CLIPA": r"no plain CLIP ViT \(it has vision_cfg.no_ln_pre, .*text_cfg.hf_tokenizer_name",
        "ViT-B-16-SigLIP": "no ViT of open_clip's own",
        "RN50": "no ViT of open_clip's own",
        "coca_ViT-B-32": r"no plain CLIP ViT \(it has multimodal_cfg",
        "ViT-Z": "unknown; expected an open_clip model",
    }.items():
        with pytest.raises(HplError, match=message):
            create_backbone(choose("any", name), SQUARE)


# Tags


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = {"mean": open_clip.OPENAI_DATASET_MEAN, "quick_gelu": True}
    pretrained = open_clip.pretrained._PRETRAINED
    monkeypatch.setitem(pretrained, "Small", {"fast": tag})
    monkeypatch.setitem(pretrained, "Small-quickgelu", {"fast": tag, "grey": tag | {"mean": (0.5, 0.5, 0.5)}})


def test_a_tag_that_may_be_fetched(tags: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file(plain().state_dict(), tmp_path / "cached")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: str(tmp_path / "cached"))
    model, _, account = create_backbone(choose("fast", download=True), SQUARE)
    assert_same(model, plain())
    assert account == Account(weights="fast", layout="safetensors file")
    _, _, account = create_backbone(choose("grey", download=True), SQUARE)
    assert account.notes == ["grey was trained on pictures normalised otherwise than CLIP's, as which HPL normalises them"]
    with pytest.raises(HplError, match="'fast': trained with QuickGELU; expected backbone.model: Small-quickgelu"):
        create_backbone(choose("fast", "Small", download=True), SQUARE)


@pytest.mark.parametrize(
    "error", [OSError("no network\nat all"), RuntimeError("wrong checksum"), FileNotFoundError("no such file")]
)
def test_a_tag_that_cannot_be_fetched(tags: None, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def download_pretrained(tag: dict) -> str:
        raise error

    monkeypatch.setattr(open_clip, "download_pretrained", download_pretrained)
    with pytest.raises(HplError, match=r"backbone.weights = 'fast': cannot be fetched \(") as caught:
        create_backbone(choose("fast", download=True), SQUARE)
    assert "\n" not in str(caught.value)


# The account


def test_the_account_is_written_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_torch(irra(plain().state_dict()), Path("irra.pth"))
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        model, config, account = create_backbone(choose("irra.pth"), Input(height=24, width=12, context_length=16))
        folder.mkdir()
        save_backbone(folder, model, config, account)
        texts.append((folder / "account.json").read_text())
    assert texts[0] == texts[1] and str(tmp_path) not in texts[0]
    assert json.loads(texts[0]) == {
        "weights": "irra.pth",
        "layout": "PyTorch file, names of the IRRA family",
        "missing": ["logit_scale"],
        "unexpected": [
            "classifier.bias",
            "classifier.weight",
            "cross_attn.in_proj_weight",
            "ln_pre_t.weight",
            "mlm_head.dense.weight",
        ],
        "resized": {"visual.positional_embedding": [[4, 4], [4, 2]]},
        "notes": [],
    }


# Overlapping patches


@pytest.mark.parametrize("stride", [None, 6])
def test_a_stride_of_one_patch_is_the_plain_tower(stride: int | None, tmp_path: Path) -> None:
    path = write_torch(plain().state_dict(), tmp_path / "clip.pt")
    model, config, _ = create_backbone(choose(path, stride=stride), SQUARE)
    assert "stride" not in config and model.visual.grid_size == (4, 4)
    assert_same(model, plain())


@pytest.mark.parametrize(
    ("stride", "size", "grid"), [(4, (24, 24), (5, 5)), (3, (48, 12), (15, 3)), (5, (24, 13), (4, 2)), (1, (8, 7), (3, 2))]
)
def test_overlapping_patches_see_their_pixels_with_their_positions(stride: int, size: tuple, grid: tuple, tmp_path: Path) -> None:
    """A tower of one's own, from cut patches and positions interpolated by torch alone, gives the same tokens."""
    source = plain()
    path = write_torch(source.state_dict(), tmp_path / "clip.pt")
    model, config, account = create_backbone(choose(path, stride=stride), Input(height=size[0], width=size[1], context_length=16))
    visual, images = model.eval().visual, pictures(*size)
    assert visual.grid_size == grid and config["stride"] == stride and config["vision_cfg"]["image_size"] == list(size)
    assert account.resized == ({} if grid == (4, 4) else {"visual.positional_embedding": [[4, 4], list(grid)]})
    rest = size[0] - ((grid[0] - 1) * stride + 6), size[1] - ((grid[1] - 1) * stride + 6)
    assert len(account.notes) == 1 + (max(rest) > 0)

    patches = torch.stack(
        [images[:, :, i * stride : i * stride + 6, j * stride : j * stride + 6] for i in range(grid[0]) for j in range(grid[1])],
        dim=1,
    )
    given = source.visual.positional_embedding
    table = given[1:].T.reshape(1, 16, 4, 4)
    table = nn.functional.interpolate(table, size=grid, mode="bicubic", antialias=True).flatten(2)[0].T
    tokens = patches.flatten(2) @ source.visual.conv1.weight.flatten(1).T + table
    classes = (source.visual.class_embedding + given[0]).expand(len(images), 1, -1)
    x = source.visual.transformer(source.visual.ln_pre(torch.cat([classes, tokens], dim=1)))
    expected = source.visual.ln_post(x) @ source.visual.proj

    torch.testing.assert_close(model.encode_image(images), expected[:, 0])
    ours = ImageTower(model, task_routing=False)(images)
    assert ours.shape == (2, 2 + grid[0] * grid[1], 16)
    torch.testing.assert_close(ours[:, 2:], expected[:, 1:])
    assert ImageTower(model, task_routing=True)(images).shape == ours.shape


def test_a_stride_survives_both_folders(tmp_path: Path) -> None:
    choice = ScratchBackbone(
        source="scratch", embed_dim=16, vision_width=16, vision_layers=1, vision_heads=2, patch_size=6, stride=4,
        text_width=24, text_layers=1, text_heads=2,
    )  # fmt: skip
    size = Input(height=24, width=12, context_length=16)
    model, config, account = create_backbone(choice, size)
    assert model.visual.grid_size == (5, 2) and config == scratch_config(choice, size) and config["stride"] == 4
    assert account.layout == "a new CLIP of random weights" and account.notes == [
        "2 rows and 2 columns of pixels, at the bottom and the right, lie in no patch"
    ]
    backbone, trained = tmp_path / "backbone", tmp_path / "model"
    backbone.mkdir(), trained.mkdir()
    save_backbone(backbone, model, config, account)
    written = json.loads((backbone / "open_clip_config.json").read_text())
    assert written["hpl"] == {"stride": 4} and "stride" not in written["model_cfg"]
    again, config_again = load_backbone(backbone)
    assert config_again == config
    images = pictures(24, 12)
    assert torch.equal(again.encode_image(images), model.eval().encode_image(images))
    tower = ImageTower(again, task_routing=True, i2i_token_noise=0.5)
    save_trained(trained, tower, TextTower(again), {"clip": config_again, "task_routing": True})
    loaded, _, _ = load_trained(trained)
    assert loaded(images).shape == (2, 2 + 10, 16) and torch.equal(loaded(images), tower(images))


def test_without_a_stride_nothing_is_drawn_otherwise() -> None:
    torch.manual_seed(0)
    ours = build_clip(SMALL).state_dict()
    torch.manual_seed(0)
    theirs = CLIP(**deepcopy(SMALL)).state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_pictures_and_strides_that_do_not_fit(tmp_path: Path) -> None:
    path = write_torch(plain().state_dict(), tmp_path / "clip.pt")
    with pytest.raises(HplError, match="input.height x width = 24 x 5: smaller than a patch of Small-quickgelu, 6 pixels"):
        create_backbone(choose(path), Input(height=24, width=5, context_length=16))
    with pytest.raises(
        HplError, match="backbone.stride = 7: leaves gaps between patches of Small-quickgelu; expected null or 1..6"
    ):
        create_backbone(choose(path, stride=7), SQUARE)
