"""What the stages before the report leave, for one small data set whose owner writes hostile captions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpl.ablation.page import write_ablation
from hpl.config import load_params
from hpl.files import write_json
from hpl.manifests.tables import Manifests
from tests.support.imports import ROOT
from tests.support.native_sets import build
from tests.support.pictures import picture, save
from tests.support.reported import HOSTILE, write, write_cells

PEOPLE, PICTURES = 6, 4
COLOURS = ["red", "blue", "red", "blue", "green", "green"]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    """Six test people of four pictures by four cameras, each picture with a caption; one person trains."""
    root = tmp_path_factory.mktemp("raw")
    lines, known = ["path,pid,camid,caption,split"], {}
    for person in range(PEOPLE + 1):
        for camera in range(PICTURES):
            path = f"{person}_{camera}.png"
            save(picture(700 + 10 * person + camera), root / "own" / path)
            caption = HOSTILE if (person, camera) == (1, 0) else f"Person {person} in picture {camera}."
            lines.append(
                f'{path},p{person},{camera + 1},"{caption.replace(chr(34), 2 * chr(34))}",{"test" if person else "train"}'
            )
            colour = COLOURS[person - 1]
            known[path] = {"identity": {"top_colour": colour, "gender": "man", "tints": [1]}, "instance": {"bag": "none"}}
    (root / "own" / "people.csv").write_text("\n".join(lines) + "\n")
    (root / "own" / "attributes.json").write_text(json.dumps(known))
    source = {"format": "table", "folder": "own", "use": ["train", "test"]}
    return build(root, root / "out", datasets=(source,))


@pytest.fixture(scope="session")
def evaluation(tables: Manifests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the evaluate stage writes, from random similarities."""
    folder, rng = tmp_path_factory.mktemp("evaluation"), np.random.default_rng(0)
    images = tables.images[tables.images["split"] == "test"]
    captions = tables.captions[tables.captions["split"] == "test"]
    bins = []
    for task, queries, key in (("t2i", captions, "caption_id"), ("i2i", images, "query_image_id")):
        lists, scores = [], []
        for query in queries.itertuples():
            image_id = query.image_id
            query_id = query.caption_id if task == "t2i" else image_id
            gallery = images if task == "t2i" else images[images["image_id"] != image_id]
            similarity = rng.uniform(0, 0.5, len(gallery)) + 0.15 * (gallery["pid"] == query.pid)
            order = np.argsort(-similarity.to_numpy())
            match = (gallery["pid"] == query.pid).to_numpy()[order]
            hits = np.flatnonzero(match) + 1
            ap, inp = float(np.mean(np.arange(1, len(hits) + 1) / hits)), len(hits) / hits[-1]
            camid = -1 if task == "t2i" else query.camid
            scores.append(("own", query_id, query.pid, camid, len(hits), hits[0], ap, inp))
            found = gallery["image_id"].to_numpy()[order]
            lists += [("own", query_id, n + 1, found[n], round(similarity.iloc[order[n]], 4), match[n]) for n in range(10)]
        columns = ["dataset", key, "pid", "camid", "num_matches", "first_rank", "ap", "inp"]
        pd.DataFrame(scores, columns=columns).to_parquet(folder / f"scores_{task}.parquet", index=False)
        columns = ["dataset", key, "rank", "image_id", "similarity", "match"]
        pd.DataFrame(lists, columns=columns).to_parquet(folder / f"rank_lists_{task}.parquet", index=False)
        edges = np.linspace(-1, 1, 41)
        counts = {name: np.histogram(rng.normal(mean, 0.1, 300), edges)[0] for name, mean in (("matches", 0.6), ("others", 0.2))}
        bins.append(pd.DataFrame({"task": task, "dataset": "own", "low": edges[:-1], "high": edges[1:], **counts}))
    pd.concat(bins).to_parquet(folder / "similarities.parquet", index=False)
    edges = np.arange(11) / 10
    reliability = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "expected": [*edges[:9] + 0.05, np.nan]})
    observed = (reliability["expected"] - 0.02).clip(0)
    ends = {"observed": observed, "observed_ci_low": observed / 2, "observed_ci_high": observed * 1.1}
    reliability = reliability.assign(**ends, num_same=[*range(9), 0], num_others=[*range(1, 10), 0])
    tables_of = [reliability.assign(task=task) for task in ("t2i", "i2i")]
    pd.concat(tables_of).to_parquet(folder / "reliability.parquet", index=False)
    tokens = {task: rng.normal(size=(len(images), 16)).astype(np.float16) for task in ("t2i", "i2i")}
    np.savez(folder / "tokens.npz", image_ids=images["image_id"].to_numpy(), **tokens)
    shown = captions.drop_duplicates("pid").head(2)
    np.savez(
        folder / "attention.npz",
        image_id=shown["image_id"].to_numpy(),
        caption_id=shown["caption_id"].to_numpy(),
        partner_image_id=shown["image_id"].to_numpy() + 1,
        **{task: rng.random((2, 4, 2)).astype(np.float32) for task in ("t2i", "i2i")},
    )
    write_json(folder / "settings.json", {"rerank": False, "flip": True, "composed_weight": 0.5, "label": "..."})
    return folder


@pytest.fixture(scope="session")
def manifests(tables: Manifests) -> Path:
    return Path(tables.datasets["own"]["folder"]).parent / "out" / "manifests"


@pytest.fixture(scope="session")
def reports(manifests: Path, evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of reports."""
    return write(tmp_path_factory.mktemp("project"), manifests, evaluation)


@pytest.fixture(scope="session")
def ablation_reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reports/ablation/ of such cells."""
    folder, params = tmp_path_factory.mktemp("ablation"), load_params(ROOT / "params.yaml")
    write_ablation(folder / "out", write_cells(folder / "cells", params.ablation), params)
    return folder / "out"
