"""The shipped model, CLIP plus one token, and the neck of v_i2i: no prompt, network of stage I or classifier is needed."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.weights import build_described
from hpl.files import HplError, parsing, read_json, write_json

_DESCRIPTION_FILE, TENSORS_FILE, _NECK_FILE = "model.json", "model.safetensors", "neck.safetensors"
NeckArrays = tuple[np.ndarray, np.ndarray]


def save_trained(
    folder: Path, images: ImageTower, texts: TextTower, description: dict, neck: nn.BatchNorm1d | None = None
) -> None:
    """Write both towers, and the neck if given.

    `description` is JSON and holds at least `clip` (open_clip's model_cfg) and `task_routing`.
    """
    state = nn.ModuleDict({"images": images, "texts": texts}).state_dict()
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, Path(folder) / TENSORS_FILE)
    if neck is not None:
        save_file(dict(zip(("scale", "shift"), map(torch.from_numpy, neck_arrays(neck)))), Path(folder) / _NECK_FILE)
    write_json(Path(folder) / _DESCRIPTION_FILE, description)


def neck_arrays(neck: nn.BatchNorm1d) -> NeckArrays:
    """Write a batch norm in evaluation as v * scale + shift: two arrays of D, float32."""
    state = {name: value.detach().cpu() for name, value in neck.state_dict().items()}
    scale = state["weight"] / (state["running_var"] + neck.eps).sqrt()
    return scale.numpy(), (state["bias"] - state["running_mean"] * scale).numpy()


def load_neck(folder: Path) -> NeckArrays:
    """Read the neck of v_i2i. HplError if the model was written without one."""
    file = Path(folder) / _NECK_FILE
    if not file.is_file():
        raise HplError(f"{file}: file not found; run the train stage again, or set evaluate.neck: before")
    with parsing(file, "delete its folder and run the train stage again"):
        tensors = load_file(file)
        return tensors["scale"].numpy(), tensors["shift"].numpy()


def load_trained(folder: Path) -> tuple[ImageTower, TextTower, dict]:
    """Read what `save_trained` wrote: both towers, in evaluation mode on the CPU, and the description."""
    folder = Path(folder)
    if not (folder / TENSORS_FILE).is_file():
        raise HplError(f"{folder / TENSORS_FILE}: file not found; run the train stage")
    description = read_json(folder / _DESCRIPTION_FILE)
    with parsing(folder, "delete it and run the train stage again"):
        tensors = load_file(folder / TENSORS_FILE)
        clip = build_described(description["clip"], tensors)
        images, texts = ImageTower(clip, task_routing=description["task_routing"] is True), TextTower(clip)
        nn.ModuleDict({"images": images, "texts": texts}).eval().load_state_dict(tensors)
    return images, texts, description
