"""reports/README.md: the result table, the curves, the data, and rank lists of both tasks."""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.files import read_json, write_text
from hpl.manifests.tables import Manifests
from hpl.reports.data_audit import counts_table, links_sentence
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
        "colour histogram": baselines.get("colour_histogram", {}),
        "colour histogram, middle of the picture": baselines.get("colour_histogram_middle", {}),
    }
    lines = ["| percent | T2I R1 | R5 | R10 | mAP | mINP | I2I R1 | R5 | R10 | mAP | mINP |", "|---|" + "---:|" * 10]
    for name, figures in rows.items():
        lines.append(f"| {name} | {_cells(figures)} |")
    return "\n".join(lines)


def _cells(figures: dict) -> str:
    return " | ".join(f"{figures[task][figure]:.2f}" if task in figures else "-" for task in ("t2i", "i2i") for figure in FIGURES)


def others_table(metrics: dict, baselines: dict) -> str:
    """Markdown table of the further data sets that were evaluated, trained and zero-shot; empty if there are none."""
    lines = ["| percent | T2I R1 | R5 | R10 | mAP | mINP | I2I R1 | R5 | R10 | mAP | mINP |", "|---|" + "---:|" * 10]
    for name, figures in sorted(metrics.get("others", {}).items()):
        lines.append(f"| {name} | {_cells(figures)} |")
        lines.append(f"| {name}, zero-shot | {_cells(baselines['zero_shot']['others'][name])} |")
    return "\n".join(lines) if len(lines) > 2 else ""


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
        if task not in read_json(metrics):
            continue
        lists = pd.read_parquet(evaluation / f"rank_lists_{task}.parquet")
        lists = lists[lists["dataset"] == lists["dataset"].iloc[0]]
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
    images = tables.images[(tables.images["pid"] > 0) & (~tables.images["role"].isin(["dropped", "unused"]))]
    for (dataset, split), group in images.groupby(["dataset", "split"], sort=True):
        if split == "val":
            continue
        sizes = group.groupby("pid").size()
        for pid in sizes.sort_values(ascending=False, kind="stable").index[:NUM_PEOPLE]:
            pictures = group[group["pid"] == pid].sort_values(["camid", "path"])
            chosen = pictures.iloc[np.linspace(0, len(pictures) - 1, min(NUM_PICTURES, len(pictures))).round().astype(int)]
            rows.append((f"{dataset}, {split}, pid {pid}", tables.files(chosen)))
    return rows


QUERIES = {"t2i": "captions", "i2i": "pictures"}
RANK_LISTS = {
    "t2i": """## Rank lists, text to image

Queries are evenly spaced over the test captions, not chosen by their result. Green: the right person; red: another.

![Text-to-image rank lists: a caption, then the ten best pictures](figures/rank_lists_t2i.png)""",
    "i2i": """## Rank lists, image to image

Where cameras are known, the query's own camera is left out of the gallery, as the protocol says.

![Image-to-image rank lists: a picture, then the ten best](figures/rank_lists_i2i.png)""",
}


def _page(metrics: dict, baselines: dict, histograms: dict, audit: dict, settings: dict[str, str]) -> str:
    tasks = [task for task in QUERIES if task in metrics]
    queries = ". ".join(
        f"{task.upper()}: {metrics[task]['num_queries']:,} {QUERIES[task]} as queries ({metrics[task]['num_skipped']:,} skipped without a match)"
        for task in tasks
    )
    results = f"""## Results on the test split

{result_table(metrics, baselines)}

{queries}. R*k*: a right picture among the first *k*; mAP: mean of the precision at each right picture; mINP: right pictures
over the rank of the last one. Ties count against us. The zero-shot row is the backbone before stage II."""
    if histograms:
        results += f""" The histogram rows learn nothing: each is
the best by mAP of eight counts of colour ({histograms["colour_histogram"]}; {histograms["colour_histogram_middle"]}), over the whole picture and without
a fifth of the width at each side, where the background is."""
    sections = ["# Report", "\n".join(f"- {name}: {value}" for name, value in settings.items()), results]
    if others := others_table(metrics, baselines):
        sections.append(
            f"## Other data sets\n\nThe same model on the test split of further sets: across domains where it was not trained on them.\n\n{others}"
        )
    sections += [
        "## Curves\n\n![Loss curves of each stage](figures/curves.png)",
        f"## What was read\n\n{counts_table(audit)}\n\n{links_sentence(audit)} [More on the data](data_audit.md).",
        "![Some people of each data set](figures/contact_sheet.png)",
        *(RANK_LISTS[task] for task in tasks),
    ]
    return "\n\n".join(sections) + "\n"
