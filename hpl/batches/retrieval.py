"""A model, or no model, on the test split of both tasks."""

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hpl.backbones.towers import ImageTower, TextTower
from hpl.batches.extract import extract_image_features, extract_text_features
from hpl.config import Evaluate, Input
from hpl.evaluation.histogram import VARIANTS, colour_histograms
from hpl.evaluation.protocols import evaluate_i2i, evaluate_t2i, rank_lists, rounded
from hpl.files import HplError
from hpl.manifests.pictures import read_pictures
from hpl.manifests.tables import Manifests

BLOCK = 512  # pictures read at a time for histograms


def test_tables(tables: Manifests) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Captions and gallery of T2I, queries and gallery of I2I. HplError names the one that is empty.

    Their `pid` is the data set's own: a protocol must not depend on what was linked across sets.
    """
    images = tables.images[tables.images["split"] == "test"]
    captioned = images["image_id"].isin(tables.captions["image_id"])
    parts = {
        "captions of test pictures": tables.captions[tables.captions["split"] == "test"],
        "captioned test pictures": images[captioned & (images["role"] == "gallery")],
        "query pictures": images[images["role"] == "query"],
        "gallery pictures without captions": images[~captioned & (images["role"] == "gallery")],
    }
    for what, table in parts.items():
        if table.empty:
            raise HplError(f"data/manifests: no {what}; expected a caption set and a picture set with a test split")
    return tuple(table.assign(pid=table["source_pid"]).reset_index(drop=True) for table in parts.values())


def evaluate_towers(
    images: ImageTower, texts: TextTower, tables: Manifests, size: Input, options: Evaluate, device: torch.device
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Figures of both tasks, `{"t2i": {...}, "i2i": {...}}` in percent, and their rank lists with the query's image_id or caption_id."""
    captions, t2i_gallery, queries, i2i_gallery = test_tables(tables)
    images.to(device), texts.to(device)

    def pictures(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        shape = (size.height, size.width)
        return tuple(
            part.numpy() for part in extract_image_features(images, tables.files(table), shape, options.batch_size, device)
        )

    text = extract_text_features(texts, captions["caption"].tolist(), size.context_length, options.batch_size, device).numpy()
    t2i, _ = pictures(t2i_gallery)
    (_, query), (_, gallery) = pictures(queries), pictures(i2i_gallery)
    figures = {
        "t2i": rounded(evaluate_t2i(text, t2i, captions, t2i_gallery)),
        "i2i": rounded(evaluate_i2i(query, gallery, queries, i2i_gallery)),
    }
    length = options.rank_list_length
    t2i_ranks = rank_lists(text, t2i, captions, t2i_gallery, length, camera_rule=False)
    i2i_ranks = rank_lists(query, gallery, queries, i2i_gallery, length, camera_rule=True)
    t2i_ranks.insert(0, "caption_id", captions["caption_id"].to_numpy()[t2i_ranks.pop("query")])
    i2i_ranks.insert(0, "query_image_id", queries["image_id"].to_numpy()[i2i_ranks.pop("query")])
    return figures, {"t2i": t2i_ranks, "i2i": i2i_ranks}


def evaluate_histograms(tables: Manifests, size: Input) -> dict[str, tuple[dict[str, float], str]]:
    """Image-to-image figures of the best colour histogram, and which one that is: the floor that says how hard the pictures are.

    Two floors: `colour_histogram` counts the whole picture, `colour_histogram_middle` leaves out the background at both sides. Each is the
    best of VARIANTS by its own mAP on the test split, in its favour.
    """
    _, _, queries, gallery = test_tables(tables)
    floors = {"colour_histogram": False, "colour_histogram_middle": True}

    def features(table: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
        parts = {(floor, name): [] for floor in floors for name in VARIANTS}
        files = tables.files(table)
        for start in tqdm(range(0, len(files), BLOCK), desc="histograms", unit="blocks"):
            block = read_pictures(files[start : start + BLOCK], size.height, size.width)
            for floor, name in parts:
                parts[floor, name].append(colour_histograms(block, *VARIANTS[name], floors[floor]).astype(np.float16))
        return {key: np.concatenate(part) for key, part in parts.items()}

    left, right = features(queries), features(gallery)
    best = {}
    for floor in floors:
        scores = {name: evaluate_i2i(left[floor, name], right[floor, name], queries, gallery) for name in VARIANTS}
        name = max(scores, key=lambda name: scores[name]["mAP"])
        best[floor] = rounded(scores[name]), name
    return best
