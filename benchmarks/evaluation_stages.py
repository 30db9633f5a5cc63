"""Time and peak memory of the whole stages baselines and evaluate on a test set of MSMT17's size.

    python benchmarks/evaluation_stages.py                # 93,820 test pictures, some minutes
    python benchmarks/evaluation_stages.py --scale 0.05   # a twentieth of it

The pictures are those of benchmarks/preprocess.py, read at 64 x 32, for a network of random weights with features of 512 numbers:
what decoding at 384 x 128 and a real network take comes on top of the time. Memory is that of the stage's process and its
children, as there.
"""

import argparse
import json
import tempfile
from pathlib import Path

import preprocess
from ruamel.yaml import YAML

from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.trained import save_trained
from hpl.backbones.weights import create_backbone, save_backbone
from hpl.config import load_params

SIZES = {"embed_dim": 512, "vision_width": 64, "vision_layers": 1, "vision_heads": 2, "patch_size": 16, "stride": None}
SIZES |= {"source": "scratch", "text_width": 64, "text_layers": 1, "text_heads": 2}
MANIFESTS, BASELINES, MODEL = "data/manifests", "data/baselines", "data/model"


def write_params(folder: Path) -> None:
    """MSMT17 alone, small pictures, a small network with wide features."""
    yaml = YAML()
    params = yaml.load((preprocess.ROOT / "params.yaml").read_text())
    params["profile"] = "paper-icfg-msmt"
    profile = params["profiles"]["paper-icfg-msmt"]
    profile["data"]["datasets"] = [entry for entry in profile["data"]["datasets"] if entry["format"] == "msmt17"]
    profile["data"]["datasets"][0]["official"] = False
    profile["input"] = {"height": 64, "width": 32, "context_length": 32}
    profile["backbone"] = SIZES
    with open(folder / "params.yaml", "w") as file:
        yaml.dump(params, file)


def write_models(folder: Path) -> None:
    """A backbone of random weights, and the same as a trained model."""
    profile = load_params(folder / "params.yaml").active
    clip, config, account = create_backbone(profile.backbone, profile.input)
    for name in ("data/backbone", MODEL):
        (folder / name).mkdir(parents=True)
    save_backbone(folder / "data/backbone", clip, config, account)
    description = {"clip": config, "task_routing": True}
    save_trained(folder / MODEL, ImageTower(clip, task_routing=True), TextTower(clip), description)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    preprocess.LISTS["train"], preprocess.LISTS["val"] = ("train", 300, 30), ("train", 30, 30)  # they are not evaluated
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_params(folder)
        write_models(folder)
        total = preprocess.make_tree(folder / "data/raw/MSMT17", options.scale)
        print(f"{total:,} pictures", flush=True)
        for name, paths in {
            "preprocess": ["data/raw", MANIFESTS, "data/pictures"],
            "baselines": [MANIFESTS, "data/backbone", BASELINES, "baselines.json"],
            "evaluate": [MANIFESTS, BASELINES, MODEL, "data/evaluation", "metrics.json"],
        }.items():
            print(name, flush=True)
            preprocess.run(folder, name, *paths)
        print(f"mAP {json.loads((folder / 'metrics.json').read_text())['i2i']['mAP']}, of random weights")


if __name__ == "__main__":
    main()
