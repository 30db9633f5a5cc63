"""Words that only pretraining knew still find people after stage II, which never met them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from hpl.backbones.encoding import normalise
from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import at_end
from hpl.batches.loading import TrainingData
from hpl.config import load_params
from hpl.manifests.shards import ShardWriter
from hpl.training.pretrain import pretrain
from hpl.training.train import train
from tests.support.parameters import with_profile
from tests.support.tiny import SIZE, fresh_clip

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
COLOURS = {"red": "crimson", "green": "emerald", "blue": "azure", "yellow": "golden"}  # the second word is of pretraining alone
PIXELS = ((220, 30, 30), (30, 200, 40), (30, 40, 220), (220, 210, 40))


class World:
    """Stands in for hpl.manifests.tables.Manifests: people of one colour each, two pictures each, packed in `folder`."""

    def __init__(self, folder: Path, role: str, words: list[list[str]]) -> None:
        """`words[c]` are those that captions have for colour c, in turn."""
        count = 96
        pids, colours = np.arange(count) // 2, np.arange(count) // 2 % len(COLOURS)
        images = {
            "image_id": np.arange(count),
            "dataset": "T",
            "role": role,
            "pid": pids,
            "camid": 1,
            "pack_row": np.arange(count),
        }
        self.images = pd.DataFrame(images)
        captions = [f"A person in {words[colour][n % len(words[colour])]}." for n, colour in enumerate(colours)]
        self.captions = self.images.assign(caption=captions)
        with ShardWriter(folder, "pictures", 96) as writer:
            writer.append(pictures(colours, seed=len(role)))

    def serving(self, task: str, use: str) -> list[str]:
        return ["T"]


def pictures(colours: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 25, (len(colours), 3, SIZE.height, SIZE.width))
    return (np.array(PIXELS)[colours][:, :, None, None] + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("moments", ["joint", "task"])
def test_a_synonym_that_only_pretraining_knew_finds_its_people(tmp_path: Path, moments: str) -> None:
    clip, cpu = fresh_clip(), torch.device("cpu")
    profile = PARAMS.active
    learns = {"epochs": 25, "batch_size": 16, "lr": 3e-3, "warmup_epochs": 1, "loader_workers": 0}
    sizes = {
        "epochs": 10,
        "t2i_batch": 16,
        "i2i_batch": 16,
        "num_instances": 2,
        "pad": 1,
        "loader_workers": 0,
        "moments": moments,
    }
    params = with_profile(
        PARAMS,
        input=SIZE,
        pretrain=profile.pretrain.model_copy(update=learns),
        train=profile.train.model_copy(
            update={**sizes, "moments": moments, "peak_lr": 1e-3, "validate_epochs": 0, "selection": "last"}
        ),
    )
    for folder in ("pretrain", "train"):
        (tmp_path / folder).mkdir()
    both = World(tmp_path / "pretrain", "pretrain", [list(pair) for pair in COLOURS.items()])
    pretrain(clip, TrainingData(both, tmp_path / "pretrain"), params, cpu)
    common = World(tmp_path / "train", "train", [[word] for word in COLOURS])
    model, *_ = train(clip, None, TrainingData(common, tmp_path / "train"), params, cpu)

    colours = np.arange(40) % len(COLOURS)
    with torch.no_grad():
        images = normalize(model.images(normalise(torch.from_numpy(pictures(colours, seed=1))))[:, 0], dim=-1)
        for words in (list(COLOURS), list(COLOURS.values())):
            tokens = tokenize([f"A person in {word}." for word in words], SIZE.context_length)
            texts = normalize(at_end(*model.texts(tokens)), dim=-1)
            found = (texts @ images.T).topk(10).indices.numpy()  # there are ten of each colour; by chance 2.5 are right
            assert np.mean(colours[found] == np.arange(len(words))[:, None]) > 0.6, words
