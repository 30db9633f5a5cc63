"""Both tasks on the validation split, while stage II runs: what an epoch may be chosen by. The test split is never read here."""

import numpy as np
import pandas as pd
import torch

from hpl.backbones.towers import ImageTower, TextTower
from hpl.config import Input
from hpl.evaluation.protocols import evaluate_i2i, evaluate_t2i
from hpl.manifests.tables import Manifests, choose_queries
from hpl.retrieval.features import extract_image_features, extract_text_features
from hpl.runtime.distributed import gather_rows, rank, world_size

TASKS = ("t2i", "i2i")


def validation_sets(manifests: Manifests) -> dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]]:
    """Queries and gallery of each data set that has validation people, by task; a task that none can be measured for is left out.

    T2I: every caption against every picture of the set. I2I: queries are drawn as for a test split without marks (choose_queries).
    """
    pictures = manifests.images[manifests.images["role"] == "val"]
    captions = manifests.captions[manifests.captions["role"] == "val"]
    sets: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = {}
    for name in pictures["dataset"].unique():
        own, sentences = pictures[pictures["dataset"] == name], captions[captions["dataset"] == name]
        if name in manifests.serving("t2i", "train") and len(sentences):
            sets.setdefault("t2i", []).append((sentences, own))
        if name in manifests.serving("i2i", "train"):
            drawn = choose_queries(own.assign(split="test", role="", anonymous=own["person"] == ""), seed=0)
            queries, gallery = drawn[drawn["role"] == "query"], drawn[drawn["role"] == "gallery"]
            if len(queries):
                sets.setdefault("i2i", []).append((queries, gallery))
    return sets


def validate(
    images: ImageTower,
    texts: TextTower,
    manifests: Manifests,
    sets: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]],
    size: Input,
    batch_size: int,
    device: torch.device,
) -> dict[str, float]:
    """mAP of each task of `validation_sets` in percent, the mean over its data sets. The same on each of several processes."""
    pictures = pd.concat(
        [
            table
            for task, pairs in sets.items()
            for queries, gallery in pairs
            for table in ([queries] * (task == "i2i") + [gallery])
        ]
    ).drop_duplicates("image_id")
    both = extract_image_features(images, manifests.files(pictures), (size.height, size.width), batch_size, device)
    v_t2i, v_i2i = (features.numpy() for features in both)
    row_of = pd.Series(np.arange(len(pictures)), index=pictures["image_id"])
    figures = []
    for task, pairs in sets.items():
        found = []
        for queries, gallery in pairs:
            rows = row_of[gallery["image_id"]]
            if task == "t2i":
                asked = extract_text_features(texts, queries["caption"], size.context_length, batch_size, device).numpy()
                found.append((evaluate_t2i, asked, v_t2i[rows], queries, gallery))
            else:
                found.append((evaluate_i2i, v_i2i[row_of[queries["image_id"]]], v_i2i[rows], queries, gallery))
        figures.append(np.nan if rank() else np.mean([evaluate(*rest)["mAP"] for evaluate, *rest in found]))
    agreed = gather_rows(torch.tensor([figures], dtype=torch.float64), [1] * world_size())[0]  # those of the first process
    return dict(zip(sets, agreed.tolist(), strict=True))
