"""CLIP weights: a new small CLIP, an open_clip model by name and tag, or a file; written so that open_clip itself can load them.

A backbone folder holds open_clip_config.json and open_clip_model.safetensors, which
`open_clip.create_model("local-dir:data/backbone")` reads unless patches overlap, which its model cannot; and account.json, what
became of the weights that were given.

A configuration is open_clip's `model_cfg`, with one key more, `stride`, where patches overlap.
"""

import math
import re
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from hpl.backbones.weight_files import WeightFile, read_weight_file, some
from hpl.config import Input, OpenClipBackbone, ScratchBackbone
from hpl.files import HplError, parsing, read_json, write_json

_CONFIG_FILE, WEIGHTS_FILE, _ACCOUNT_FILE = "open_clip_config.json", "open_clip_model.safetensors", "account.json"
_VOCABULARY = 49408  # of CLIP's own tokenizer
_IMAGE_POSITIONS, _TEXT_POSITIONS, _SCALE = "visual.positional_embedding", "positional_embedding", "logit_scale"
_PLAIN = {  # the configuration of a plain CLIP ViT; all else changes tokens, pooling or text in ways that HPL does not know
    "": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision_cfg.": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "ls_init_value"},
    "text_cfg.": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value"},
}
_NEAR_TIE = 1.25  # another grid whose side ratio is off by at most this factor more than the nearest's is worth a remark


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of the weights that were given.

    Attributes:
        weights: tag or file, as the profile has it; None for a CLIP from scratch.
        layout: how the file is made.
        missing: tensors that the file lacks and that keep their initial values.
        unexpected: tensors of the file that have no place in the two towers.
        resized: positional tables, [from, to]: rows and columns of patches, or text tokens.
        notes: what else is worth knowing.
    """

    weights: str | None
    layout: str
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: dict[str, list[list[int]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Write the account in a few lines for a person."""
        lines = [f"{self.weights}: {self.layout}" if self.weights else self.layout]
        if self.missing:
            lines.append(f"not in it, so as CLIP begins: {', '.join(self.missing)}")
        if self.unexpected:
            modules = [name.split(".")[0] for name in self.unexpected]
            counts = ", ".join(f"{module} ({modules.count(module)})" for module in dict.fromkeys(modules))
            lines.append(f"{len(modules)} tensors left aside: {counts}")
        for name, sizes in self.resized.items():
            lines.append(f"{name}: {' to '.join(' x '.join(map(str, size)) for size in sizes)}")
        return lines + self.notes


def create_backbone(choice: ScratchBackbone | OpenClipBackbone, size: Input) -> tuple[CLIP, dict, Account]:
    """Build the CLIP model that a profile names, at the pipeline's picture size. Returns its configuration and account too."""
    if choice.source == "scratch":
        config = scratch_config(choice, size)
        model = build_clip(config)
        return model, config, Account(weights=None, layout="a new CLIP of random weights", notes=_unseen_pixels(model, size))
    return _given(choice, size)


def scratch_config(choice: ScratchBackbone, size: Input) -> dict:
    """Make the configuration of a CLIP of the given shape."""
    return {
        "embed_dim": choice.embed_dim,
        "vision_cfg": {
            "image_size": [size.height, size.width],
            "layers": choice.vision_layers,
            "width": choice.vision_width,
            "head_width": choice.vision_width // choice.vision_heads,
            "patch_size": choice.patch_size,
        },
        "text_cfg": {
            "context_length": size.context_length,
            "vocab_size": _VOCABULARY,
            "width": choice.text_width,
            "heads": choice.text_heads,
            "layers": choice.text_layers,
        },
    } | _overlap(choice.stride, choice.patch_size)


def _overlap(stride: int | None, patch_size: int) -> dict:
    return {} if stride in (None, patch_size) else {"stride": stride}


def build_clip(config: dict) -> CLIP:
    """Build a CLIP of random weights. With `stride` its patches overlap (TransReID: He et al., ICCV 2021).

    Patch (i, j) covers the pixels from (i * stride, j * stride) on, so there are (height - patch) // stride + 1 rows of them,
    and columns likewise; a rest of less than a stride at the bottom and at the right is not seen.
    """
    config = deepcopy(config)
    stride = config.pop("stride", None)
    model = CLIP(**config)
    if stride is not None:
        visual = model.visual
        visual.conv1.stride = (stride, stride)
        visual.grid_size = tuple((side - patch) // stride + 1 for side, patch in zip(visual.image_size, visual.patch_size))
        width = visual.positional_embedding.shape[1]
        table_PC = torch.randn(1 + math.prod(visual.grid_size), width) * width**-0.5  # as open_clip draws it
        visual.positional_embedding = nn.Parameter(table_PC)
    return model


def build_described(config: dict, tensors: dict[str, Tensor]) -> CLIP:
    """Build the CLIP that a file beside some tensors describes.

    Other towers, for which open_clip would ask the network, and models much larger than the tensors, are refused before anything
    large is made: HplError or ValueError.
    """
    _check_plain("the described one", {key: value for key, value in config.items() if key != "stride"})
    if max(config["vision_cfg"]["layers"], config["text_cfg"]["layers"]) > len(tensors):
        raise ValueError(f"more layers than the {len(tensors)} tensors")
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in build_clip(config).parameters())
    if wanted > 2 * sum(tensor.numel() for tensor in tensors.values()):
        raise ValueError(f"described with {wanted:,} numbers")
    return build_clip(config)


def _given(choice: OpenClipBackbone, size: Input) -> tuple[CLIP, dict, Account]:
    name, config = choice.model, open_clip.get_model_config(choice.model)
    if config is None:
        raise HplError(f"backbone.model = {name!r}: unknown; expected an open_clip model such as ViT-B-16 or ViT-B-16-quickgelu")
    _check_plain(name, config)
    patch, native = config["vision_cfg"]["patch_size"], config["vision_cfg"]["image_size"]
    if min(size.height, size.width) < patch:
        raise HplError(f"input.height x width = {size.height} x {size.width}: smaller than a patch of {name}, {patch} pixels")
    if choice.stride is not None and choice.stride > patch:
        raise HplError(f"backbone.stride = {choice.stride}: leaves gaps between patches of {name}; expected null or 1..{patch}")
    path, notes = _locate(choice, config)
    tagged = path != choice.weights  # and a tag tells its activation, by which `_locate` refused a wrong one
    file = read_weight_file(path)
    if file.from_openai and not config.get("quick_gelu"):
        raise HplError(f"{choice.weights}: OpenAI's weights, which want QuickGELU; {_with_quick_gelu(name)}")
    if file.irra and not config.get("quick_gelu"):
        notes.append(f"IRRA's code uses QuickGELU, {name} does not; {_with_quick_gelu(name)}")
    elif not (file.from_openai or file.irra or tagged):
        notes.append(_assumed_activation(name, bool(config.get("quick_gelu"))))
    config["vision_cfg"]["image_size"] = [size.height, size.width]
    config["text_cfg"]["context_length"] = size.context_length
    config |= _overlap(choice.stride, patch)
    model = build_clip(config)
    native = [native, native] if isinstance(native, int) else native
    account = _fill(model, file, choice, tuple(side // patch for side in native), notes + _unseen_pixels(model, size))
    return model, config, account


def _check_plain(name: str, config: dict) -> None:
    """Raise HplError unless it is a CLIP ViT whose towers hpl.backbones.towers runs, and whose tokenizer is CLIP's."""
    if not isinstance(config["vision_cfg"].get("layers"), int):
        raise HplError(f"backbone.model = {name!r}: no ViT of open_clip's own; expected one, with the class token HPL adds to")
    sections = {"": config, "vision_cfg.": config["vision_cfg"], "text_cfg.": config["text_cfg"]}
    others = [section + key for section, values in sections.items() for key in values if key not in _PLAIN[section]]
    if others:
        raise HplError(f"backbone.model = {name!r}: no plain CLIP ViT (it has {', '.join(others)}); expected one like ViT-B-16")


def _with_quick_gelu(name: str) -> str:
    better = f"{name}-quickgelu"
    return f"expected backbone.model: {better}" if better in open_clip.list_models() else "expected a model with quick_gelu"


def _assumed_activation(name: str, quick: bool) -> str:
    """Say which activation is assumed of a file that does not tell: open_clip's files are the same for both."""
    assumed, other = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
    twin = name.removesuffix("-quickgelu") if quick else f"{name}-quickgelu"
    way = f"set backbone.model: {twin}" if twin != name and twin in open_clip.list_models() else f"choose a model with {other}"
    return (
        f"the file does not tell its activation: taken for {assumed}, as {name} has it. "
        f"If it was trained with {other} ({'most of open_clip' if quick else 'OpenAI, DFN, MetaCLIP'}), {way}"
    )


def _locate(choice: OpenClipBackbone, config: dict) -> tuple[str, list[str]]:
    """Find the file of the chosen weights, fetched if it is a tag and that is allowed, and what its tag says against it."""
    tags = open_clip.list_pretrained_tags_by_model(choice.model)
    if choice.weights not in tags:
        if not Path(choice.weights).is_file():
            known = ", ".join(tags) or "a file"
            raise HplError(f"backbone.weights = {choice.weights!r}: no such file, nor a tag of {choice.model}; expected {known}")
        return choice.weights, []
    if not choice.download:
        raise HplError(
            f"backbone.weights = {choice.weights!r}: a tag, whose weights open_clip fetches from the network; "
            "set backbone.download: true to allow that, or give a file in data/weights/"
        )
    tag, notes = open_clip.get_pretrained_cfg(choice.model, choice.weights), []
    if tag.get("quick_gelu") and not config.get("quick_gelu"):
        raise HplError(f"backbone.weights = {choice.weights!r}: trained with QuickGELU; {_with_quick_gelu(choice.model)}")
    if tuple(tag.get("mean") or OPENAI_DATASET_MEAN) != tuple(OPENAI_DATASET_MEAN):
        notes.append(f"{choice.weights} was trained on pictures normalised otherwise than CLIP's, as which HPL normalises them")
    try:
        return open_clip.download_pretrained(tag), notes
    except (OSError, RuntimeError, HTTPException) as error:  # no network, no such file there, a wrong checksum
        reason = " ".join(str(error).split())
        raise HplError(f"backbone.weights = {choice.weights!r}: cannot be fetched ({type(error).__name__}: {reason})") from error


def _unseen_pixels(model: CLIP, size: Input) -> list[str]:
    visual = model.visual
    reach = [(n - 1) * step + p for n, step, p in zip(visual.grid_size, visual.conv1.stride, visual.patch_size)]
    rows, columns = size.height - reach[0], size.width - reach[1]
    note = f"{rows} rows and {columns} columns of pixels, at the bottom and the right, lie in no patch"
    return [note] if rows or columns else []


def _fill(model: CLIP, file: WeightFile, choice: OpenClipBackbone, native: tuple[int, int], notes: list[str]) -> Account:
    """Put the tensors of a file into `model`, positions fitted to it. HplError if they are not of this model.

    Args:
        native: rows and columns of patches that the model of this name has by itself.
        notes: for the account.
    """
    expected, state, resized, notes = model.state_dict(), dict(file.state), {}, list(notes)
    missing = sorted(expected.keys() - state.keys())
    lacking, unexpected = [name for name in missing if name != _SCALE], sorted(state.keys() - expected.keys())
    if lacking:
        has = f", but has {some(unexpected + file.heads, 2)}" if unexpected or file.heads else ""
        raise HplError(
            f"{choice.weights}: lacks {len(lacking)} of the {len(expected)} tensors of {choice.model} ({some(lacking)}){has}"
        )
    if deeper := [name for name in unexpected if re.match(r"(visual\.)?transformer\.resblocks\.\d+\.ln_1\.weight$", name)]:
        raise HplError(f"{choice.weights}: weights of a deeper model than {choice.model}, which has no {', '.join(deeper[:2])}")
    for name, target in expected.items():
        value = state.get(name, target)
        if not value.is_floating_point() or value.layout != torch.strided or value.device.type != "cpu":
            raise HplError(f"{choice.weights}: {name} is {value.dtype}, {value.layout}; expected floating-point numbers")
        value = value.float()
        if name == _SCALE and value.numel() == 1:
            value = value.reshape(target.shape)
        if name == _TEXT_POSITIONS and value.shape[1:] == target.shape[1:] and len(value) != len(target):
            if len(value) < len(target):
                raise HplError(f"input.context_length = {len(target)}: {choice.weights} has positions for {len(value)} tokens")
            resized[name] = [[len(value)], [len(target)]]
            value = value[: len(target)]
        if name == _IMAGE_POSITIONS and value.shape[1:] == target.shape[1:] and len(value) > 1:
            value, grid, note = _fit_positions(value, file, model.visual.grid_size, native, model.visual.patch_size[0])
            if grid != model.visual.grid_size:
                resized[name] = [list(grid), list(model.visual.grid_size)]
            notes += [note] if note else []
        if value.shape != target.shape:
            shapes = [" x ".join(map(str, shape)) or "one number" for shape in (value.shape, target.shape)]
            raise HplError(f"{choice.weights}: {name} is {shapes[0]}; expected {shapes[1]} for {choice.model}")
        state[name] = value
    model.load_state_dict({name: state[name] for name in expected})
    return Account(
        weights=choice.weights,
        layout=file.layout,
        missing=missing,
        unexpected=unexpected + file.heads,
        resized=resized,
        notes=notes,
    )


def _fit_positions(
    table_PC: Tensor, file: WeightFile, grid: tuple[int, int], native: tuple[int, int], patch: int
) -> tuple[Tensor, tuple[int, int], str]:
    """Resample the table of a file to `grid`. Returns it, the grid that it had, and a remark if that is not sure.

    Bicubic with antialiasing, as open_clip resizes, but from and to any rectangle.
    """
    count, told = len(table_PC) - 1, (file.resolution or 0) // patch
    if told and told * told == count:
        source, note = (told, told), ""
    else:
        source, note = source_grid(count, grid, None if file.irra else native)
    return resample_abs_pos_embed(table_PC[None], grid, source)[0], source, note


def source_grid(count: int, grid: tuple[int, int], native: tuple[int, int] | None) -> tuple[tuple[int, int], str]:
    """Guess rows and columns of a table of `count` patches, which its file does not tell.

    The first that has as many patches: the grid that the model has by itself (`native`, None if the file was surely trained
    further), the grid it is wanted for, the square. Else of all rectangles the one whose side ratio is nearest to the wanted
    grid's, and of two the taller. Returns it with a remark if another is likely too.
    """
    side = math.isqrt(count)
    likely = [shape for shape in (native, (grid[0], grid[1]), (side, side)) if shape and math.prod(shape) == count]
    if not likely:
        off = {
            (rows, count // rows): abs(math.log(rows * rows / count) - math.log(grid[0] / grid[1]))
            for rows in range(count, 0, -1)
            if count % rows == 0
        }
        least = min(off.values())
        likely = sorted(
            (shape for shape in off if off[shape] - least <= math.log(_NEAR_TIE)), key=lambda shape: round(off[shape], 9)
        )
    first, *others = dict.fromkeys(likely)
    named = " or ".join(f"{rows} x {columns}" for rows, columns in others)
    return first, f"{count} patch positions taken for {first[0]} x {first[1]}; they might be {named}" if others else ""


def save_backbone(folder: Path, model: CLIP, config: dict, account: Account | None = None) -> None:
    """Write a folder that open_clip can load by the name `local-dir:<folder>`, if its patches do not overlap."""
    preprocess = asdict(PreprocessCfg(size=tuple(config["vision_cfg"]["image_size"]), resize_mode="squash"))
    theirs = {key: value for key, value in config.items() if key != "stride"}
    ours = {"hpl": {"stride": config["stride"]}} if "stride" in config else {}
    write_json(Path(folder) / _CONFIG_FILE, {"model_cfg": theirs, "preprocess_cfg": preprocess} | ours)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, Path(folder) / WEIGHTS_FILE)
    if account is not None:
        write_json(Path(folder) / _ACCOUNT_FILE, asdict(account))


def load_backbone(folder: Path) -> tuple[CLIP, dict]:
    """Read what `save_backbone` wrote: the model, in evaluation mode on the CPU, and its configuration."""
    folder = Path(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise HplError(f"{folder / WEIGHTS_FILE}: file not found; run the pretrain stage")
    content = read_json(folder / _CONFIG_FILE)
    with parsing(folder, "delete it and run the pretrain stage again"):
        tensors, config = load_file(folder / WEIGHTS_FILE), content["model_cfg"] | content.get("hpl", {})
        model = build_described(config, tensors)
        model.load_state_dict(tensors)
    return model.eval(), config
