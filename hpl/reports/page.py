"""reports/README.md: the result table, the curves, the data, and rank lists of both tasks."""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.files import read_json, write_text
from hpl.manifests.tables import Manifests
from hpl.reports.figures import draw_contact_sheet, draw_curves, draw_rank_lists

FIGURES = ["rank1", "rank5", "rank10", "mAP", "mINP"]
NUM_QUERIES = 6  # rank lists shown for each task
NUM_PEOPLE = 2  # people of each data set and split in the contact sheet
NUM_PICTURES = 12  # of each of them


def result_table(metrics: dict, baselines: dict) -> str:
    """Markdown table of both tasks: the trained model, the backbone before training, and the floor."""
    rows = {
        "HPL, trained": metrics,
        "same backbone, zero-shot": baselines["zero_shot"],
        "colour histogram": baselines["colour_histogram"],
        "colour histogram, middle of the picture": baselines["colour_histogram_middle"],
    }
    lines = ["| percent | T2I R1 | R5 | R10 | mAP | mINP | I2I R1 | R5 | R10 | mAP | mINP |", "|---|" + "---:|" * 10]
    for name, figures in rows.items():
        cells = [f"{figures[task][figure]:.2f}" if task in figures else "-" for task in ("t2i", "i2i") for figure in FIGURES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def audit_table(audit: dict) -> str:
    """Markdown table of what was read: people, pictures and captions for each set, split and role."""
    lines = ["| data set | split | used as | people | pictures | captions |", "|---|---|---|---:|---:|---:|"]
    for dataset, splits in sorted(audit["counts"].items()):
        for split, roles in sorted(splits.items()):
            for role, count in sorted(roles.items()):
                lines.append(
                    f"| {dataset} | {split} | {role} | {count['people']:,} | {count['pictures']:,} | {count['captions']:,} |"
                )
    return "\n".join(lines)


def write_report(
    folder: Path,
    manifests: Path,
    evaluation: Path,
    curves: dict[str, Path],
    metrics: Path,
    baselines: Path,
    settings: dict[str, str],
) -> None:
    """Render the page and its pictures.

    Args:
        folder: holds README.md and figures/.
        curves: title -> CSV.
        settings: what stands above the table, name -> value.
    """
    tables, audit = Manifests(manifests), read_json(manifests / "audit.json")
    figures = folder / "figures"
    draw_curves({title: pd.read_csv(path) for title, path in curves.items()}, figures / "curves.png")
    draw_contact_sheet(_people(tables), figures / "contact_sheet.png")
    sentences = tables.captions.set_index("caption_id")["caption"]
    for task, key in (("t2i", "caption_id"), ("i2i", "query_image_id")):
        lists = pd.read_parquet(evaluation / f"rank_lists_{task}.parquet")
        queries = lists[key].unique()
        rows = []
        for query in queries[np.linspace(0, len(queries) - 1, min(NUM_QUERIES, len(queries))).round().astype(int)]:
            found = lists[lists[key] == query]
            shown = {"caption": sentences[query]} if task == "t2i" else {"picture": _file(tables, query)}
            files = [_file(tables, image) for image in found["image_id"]]
            rows.append({**shown, "found": list(zip(files, found["similarity"], found["match"], strict=True))})
        draw_rank_lists(rows, int(lists["rank"].max()), figures / f"rank_lists_{task}.png")
    histograms = read_json(evaluation / "histograms.json")
    write_text(folder / "README.md", _page(read_json(metrics), read_json(baselines), histograms, audit, settings))


def _file(tables: Manifests, image_id: int) -> Path:
    return tables.files(tables.images.loc[[image_id]])[0]


def _people(tables: Manifests) -> list[tuple[str, list[Path]]]:
    """The first people of each data set and split that have most pictures, at most NUM_PICTURES of each."""
    rows = []
    images = tables.images[(tables.images["pid"] > 0) & (tables.images["role"] != "dropped")]
    for (dataset, split), group in images.groupby(["dataset", "split"], sort=True):
        if split == "val":
            continue
        sizes = group.groupby("pid").size()
        for pid in sizes.sort_values(ascending=False, kind="stable").index[:NUM_PEOPLE]:
            pictures = group[group["pid"] == pid].sort_values(["camid", "path"])
            chosen = pictures.iloc[np.linspace(0, len(pictures) - 1, min(NUM_PICTURES, len(pictures))).round().astype(int)]
            rows.append((f"{dataset}, {split}, pid {pid}", tables.files(chosen)))
    return rows


def _page(metrics: dict, baselines: dict, histograms: dict, audit: dict, settings: dict[str, str]) -> str:
    people, links = audit["people"], audit["links"]
    t2i, i2i = metrics["t2i"], metrics["i2i"]
    described = "\n".join(f"- {name}: {value}" for name, value in settings.items())
    return f"""# Report

{described}

## Results on the test split

{result_table(metrics, baselines)}

T2I: {t2i["num_queries"]:,} captions as queries ({t2i["num_skipped"]:,} skipped without a match). I2I: {i2i["num_queries"]:,} pictures as
queries ({i2i["num_skipped"]:,} skipped). R*k*: a right picture among the first *k*; mAP: mean of the precision at each right picture; mINP: right pictures
over the rank of the last one. Ties count against us. The zero-shot row is the backbone before stage II. The histogram rows learn nothing: each is
the best by mAP of eight counts of colour ({histograms["colour_histogram"]}; {histograms["colour_histogram_middle"]}), over the whole picture and without
a fifth of the width at each side, where the background is.

## Curves

![Loss curves of each stage](figures/curves.png)

## What was read

{audit_table(audit)}

{links["exact"]:,} pictures stand in two sets pixel for pixel and {links["perceptual"]:,} re-encoded or resized. Through them {people["merged"]:,} people of
two sets became one label ({people["unified"]:,} in all), and {people["dropped_from_training"]:,} people left training because they occur in a test split
(`dropped` above).

![Some people of each data set](figures/contact_sheet.png)

## Rank lists, text to image

Queries are evenly spaced over the test captions, not chosen by their result. Green: the right person; red: another.

![Text-to-image rank lists: a caption, then the ten best pictures](figures/rank_lists_t2i.png)

## Rank lists, image to image

The query's own camera is left out of the gallery, as the protocol says.

![Image-to-image rank lists: a picture, then the ten best of other cameras](figures/rank_lists_i2i.png)
"""
