"""What the stages before the report leave, for one small data set whose owner writes hostile captions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpl.ablation.page import write_ablation
from hpl.config import Ablation, load_params
from hpl.files import write_json
from hpl.manifests.tables import Manifests
from hpl.reports.page import write_report
from tests.conftest import picture, save
from tests.imports import ROOT
from tests.readers.test_build import build

HOSTILE = (
    "<script>alert('x')</script> [a](javascript:alert(1)) & a \"red\" | $coat$ `x` \u7684 <img src=http://example.org/a.png>"
)
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
    write_json(folder / "histograms.json", {"colour_histogram": "RGB", "colour_histogram_middle": "HSV"})
    return folder


def figures(value: float) -> dict[str, float]:
    return {name: value for name in ("rank1", "rank5", "rank10", "mAP", "mINP")} | {"num_queries": 24, "num_skipped": 0}


def measured() -> dict:
    """What metrics.json may hold."""
    interval = {"rank1_ci_low": 44.44, "rank1_ci_high": 55.55, "mAP_ci_low": 43.0, "mAP_ci_high": 57.0}
    composed = {"rank1": 61.5, "mAP": 40.25} | interval
    gain = {"rank1": -0.5, "rank1_ci_low": -1.5, "rank1_ci_high": 0.04, "mAP": 2.0, "mAP_ci_low": 1.0, "mAP_ci_high": 3.0}
    return {
        "t2i": figures(50.0) | interval | {"rsum": 150.0, "rsum_ci_low": 140.0, "rsum_ci_high": 160.0},
        "i2i": figures(60.25) | interval,
        "datasets": {"t2i": "own", "i2i": "own"},
        "gain_over_zero_shot": {"t2i": gain},
        "others": {"MSMT17": {"i2i": figures(30.0)}},
        "composed": dict.fromkeys(("both", "picture", "sentence"), composed)
        | dict.fromkeys(("gain_over_picture", "gain_over_sentence"), gain)
        | {"counts": {"num_queries": 1020, "num_skipped": 7}},
        "open_set": {
            "t2i": {
                "detection_rate": 12.34,
                "detection_rate_ci_low": 10.0,
                "detection_rate_ci_high": 14.0,
                "num_known": 12,
                "num_unknown": 13,
            }
        },
    }


def baselines() -> dict:
    return {
        "zero_shot": {"t2i": figures(40.0) | {"rsum": 120.0}, "i2i": figures(41.0), "others": {"MSMT17": {"i2i": figures(10.0)}}},
        "colour_histogram": {"i2i": figures(9.5)},
        "colour_histogram_middle": {"i2i": figures(19.5)},
    }


def write(folder: Path, tables_folder: Path, evaluation: Path, metrics: dict | None = None) -> Path:
    """Everything that the report stage does, in `folder`."""
    curves = folder / "curves"
    curves.mkdir(parents=True)
    (curves / "train.csv").write_text(
        "epoch,sdm,cic,total,lr,val_t2i_mAP\n1,2,0,2,1e-5,\n2,1,0,1,1e-5,31.5\n3,0.5,0,0.5,1e-5,40.1\n"
    )
    (curves / "pretrain.csv").write_text("epoch\n0\n")
    write_json(folder / "metrics.json", metrics or measured())
    write_json(folder / "baselines.json", baselines())
    write_report(
        folder / "reports",
        tables_folder,
        evaluation,
        {"pretraining": curves / "pretrain.csv", "stage II": curves / "train.csv"},
        folder / "metrics.json",
        folder / "baselines.json",
        {"Profile": "own <b>", "Trained on": "own"},
        0,
    )
    return folder / "reports"


@pytest.fixture(scope="session")
def manifests(tables: Manifests) -> Path:
    return Path(tables.datasets["own"]["folder"]).parent / "out" / "manifests"


@pytest.fixture(scope="session")
def reports(manifests: Path, evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of reports."""
    return write(tmp_path_factory.mktemp("project"), manifests, evaluation)


def write_cells(folder: Path, ablation: Ablation) -> Path:
    """Every cell of params.yaml, with figures drawn at random."""
    for number, (row, seed) in enumerate(ablation.cells):
        random = np.random.default_rng(number)
        metrics = {task: {name: round(random.uniform(40, 60), 2) for name in ("rank1", "mAP")} for task in ("t2i", "i2i")}
        cell = {"row": row, "seed": seed, "changes": ablation.changes[row], "steps": 300, "metrics": metrics}
        write_json(folder / f"{row}-{seed}.json", cell)
    return folder


@pytest.fixture(scope="session")
def ablation_reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reports/ablation/ of such cells."""
    folder, params = tmp_path_factory.mktemp("ablation"), load_params(ROOT / "params.yaml")
    write_ablation(folder / "out", write_cells(folder / "cells", params.ablation), params)
    return folder / "out"
