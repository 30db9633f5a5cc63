"""CLIP weights: a new small CLIP, an open_clip model by name and tag, or a file; written so that open_clip itself can load them.

A backbone folder holds open_clip_config.json and open_clip_model.safetensors: `open_clip.create_model("local-dir:data/backbone")`.
"""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from hpl.config import Input, OpenClipBackbone, ScratchBackbone
from hpl.files import HplError, read_json, write_json

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
VOCABULARY = 49408  # of CLIP's own tokenizer


def create_backbone(choice: ScratchBackbone | OpenClipBackbone, size: Input) -> tuple[CLIP, dict]:
    """Build the CLIP model that a profile names, at the pipeline's picture size. Returns it with its open_clip configuration."""
    if choice.source == "scratch":
        config = scratch_config(choice, size)
        return build_clip(config), config
    return _given(choice, size)


def scratch_config(choice: ScratchBackbone, size: Input) -> dict:
    """open_clip's `model_cfg` of a CLIP of the given shape."""
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
            "vocab_size": VOCABULARY,
            "width": choice.text_width,
            "heads": choice.text_heads,
            "layers": choice.text_layers,
        },
    }


def build_clip(config: dict) -> CLIP:
    """A CLIP of random weights from open_clip's `model_cfg`."""
    return CLIP(**deepcopy(config))


def _given(choice: OpenClipBackbone, size: Input) -> tuple[CLIP, dict]:
    config = open_clip.get_model_config(choice.model)
    if config is None:
        raise HplError(
            f"backbone.model = {choice.model!r}: unknown; expected an open_clip model such as ViT-B-16 or ViT-B-16-quickgelu"
        )
    if not isinstance(config["vision_cfg"].get("layers"), int) or set(config) - {
        "embed_dim",
        "vision_cfg",
        "text_cfg",
        "quick_gelu",
    }:
        raise HplError(f"backbone.model = {choice.model!r}: not a plain CLIP ViT, which has the class token that HPL adds to")
    tags = open_clip.list_pretrained_tags_by_model(choice.model)
    if choice.weights in tags and not choice.download:
        raise HplError(
            f"backbone.weights = {choice.weights!r}: a tag, whose weights open_clip fetches from the network; "
            "set backbone.download: true to allow that, or give a file in data/weights/"
        )
    if choice.weights not in tags and not Path(choice.weights).is_file():
        raise HplError(
            f"backbone.weights = {choice.weights!r}: no such file, nor a tag of {choice.model}; expected one of {', '.join(tags)}"
        )
    try:
        source = open_clip.create_model(choice.model, pretrained=choice.weights, precision="fp32", weights_only=True)
    except Exception as error:  # open_clip raises anything from OSError to RuntimeError for a file it cannot use
        raise HplError(
            f"backbone.weights = {choice.weights!r}: open_clip could not load it ({type(error).__name__}: {error})"
        ) from error
    if size.context_length > config["text_cfg"]["context_length"]:
        raise HplError(
            f"input.context_length = {size.context_length}: {choice.model} reads at most {config['text_cfg']['context_length']} tokens"
        )
    config["vision_cfg"]["image_size"] = [size.height, size.width]
    config["text_cfg"]["context_length"] = size.context_length
    model = build_clip(config)
    state = source.state_dict()
    state["positional_embedding"] = state["positional_embedding"][: size.context_length]
    state["visual.positional_embedding"] = resize_positions(
        state["visual.positional_embedding"], source.visual.grid_size, model.visual.grid_size
    )
    model.load_state_dict(state)
    return model, config


def resize_positions(table_PC: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], num_classes: int = 1) -> Tensor:
    """Interpolate a positional table, (num_classes + rows * columns) x C, to another patch grid; class positions stay.

    Bicubic with antialiasing, as open_clip resizes, but from and to any rectangle.
    """
    if tuple(old_grid) == tuple(new_grid):
        return table_PC
    classes, patches = table_PC[:num_classes], table_PC[num_classes:]
    grid = patches.T.reshape(1, -1, *old_grid)
    grid = interpolate(grid.float(), size=tuple(new_grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([classes, grid.flatten(2)[0].T.to(table_PC.dtype)])


def save_backbone(folder: Path, model: CLIP, config: dict) -> None:
    """Write a folder that open_clip can load by the name `local-dir:<folder>`."""
    preprocess = asdict(PreprocessCfg(size=tuple(config["vision_cfg"]["image_size"]), resize_mode="squash"))
    write_json(Path(folder) / CONFIG_FILE, {"model_cfg": config, "preprocess_cfg": preprocess})
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, Path(folder) / WEIGHTS_FILE
    )


def load_backbone(folder: Path) -> tuple[CLIP, dict]:
    """Read what `save_backbone` wrote: the model, in evaluation mode on the CPU, and its configuration."""
    folder = Path(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise HplError(f"{folder / WEIGHTS_FILE}: file not found; run the pretrain stage")
    config = read_json(folder / CONFIG_FILE)["model_cfg"]
    model = build_clip(config)
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model.eval(), config
