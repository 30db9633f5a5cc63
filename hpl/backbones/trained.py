"""The shipped model, CLIP plus one token: no prompt, inversion network or classifier is needed after training."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.weights import build_described
from hpl.files import HplError, parsing, read_json, write_json

_DESCRIPTION_FILE, TENSORS_FILE = "model.json", "model.safetensors"


def save_trained(folder: Path, images: ImageTower, texts: TextTower, description: dict) -> None:
    """Write both towers. `description` is JSON and holds at least `clip` (open_clip's model_cfg) and `task_routing`."""
    state = nn.ModuleDict({"images": images, "texts": texts}).state_dict()
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, Path(folder) / TENSORS_FILE)
    write_json(Path(folder) / _DESCRIPTION_FILE, description)


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
