"""reports/README.md and reports/index.html: results, where they come from, and what the model finds and confuses."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpl.config import Params
from hpl.files import read_json, write_text
from hpl.manifests.tables import Manifests
from hpl.reports.calibration import calibration_sections
from hpl.reports.content import BUNDLED, Definitions, Figure, Section, html_page, markdown_page, profile_words
from hpl.reports.curves import curves_section, diagnosis_section
from hpl.reports.data_audit import counts_table, links_sentence
from hpl.reports.findings import attention, by_attribute, by_camera, projection, rank_lists, similarities
from hpl.reports.results import further_sections, results_section, tasks_of, write_headline
from hpl.reports.retrieval_figures import draw_contact_sheet
from hpl.tasks import I2I, T2I

_SHEET_PEOPLE, _SHEET_PICTURES = 2, 5  # people of each data set and split in the contact sheet, and pictures of each
_EPOCHS = {"last": "the last epoch is evaluated", "best": "the epoch of the highest mAP on the validation split is evaluated"}
_FOOT = (
    "Written by the `report` stage. More on the data: [data_audit.md](data_audit.md). If ablations were run, they stand in "
    "[ablation/index.html](ablation/index.html)."
)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Folders and files that the stages before the report wrote, named as in dvc.yaml's command."""

    manifests: Path
    evaluation: Path
    histograms: Path
    curves: Path
    metrics: Path
    baselines: Path


def write_report(folder: Path, sources: Sources, params: Params, documents: Iterable[Path] = ()) -> None:
    """Render both pages and their pictures; for the bundled profile also the result tables in the project's own pages.

    Args:
        folder: holds README.md, index.html and figures/.
        params: its seed draws the random queries and the projection.
        documents: Markdown files that hold the marks of `results`.
    """
    tables, audit = Manifests(sources.manifests), read_json(sources.manifests / "audit.json")
    metrics, baselines, figures = read_json(sources.metrics), read_json(sources.baselines), folder / "figures"
    evaluation, tasks, seed = sources.evaluation, tasks_of(metrics), params.seed
    lists, scores = (
        {task: _of_first_set(pd.read_parquet(evaluation / f"{name}_{task.name}.parquet")) for task in tasks}
        for name in ("rank_lists", "scores")
    )
    sections = [
        Section("What was run", [Definitions(_run(params) | _evaluated(read_json(evaluation / "settings.json")))], short=True),
        results_section(metrics, baselines, read_json(sources.histograms / "histograms.json"), audit),
        *further_sections(metrics, baselines),
        *calibration_sections(metrics, pd.read_parquet(evaluation / "reliability.parquet"), figures),
        *(rank_lists(task, lists[task], scores[task], tables, seed, figures) for task in tasks),
        *attention(np.load(evaluation / "attention.npz"), tables, figures),
        similarities(pd.read_parquet(evaluation / "similarities.parquet"), figures),
        *(by_camera(scores[I2I]) if I2I in tasks else []),
        *(by_attribute(lists[T2I], scores[T2I], tables, figures) if T2I in tasks else []),
        *(projection(np.load(evaluation / "tokens.npz"), tables, seed, figures) if I2I in tasks else []),
        curves_section(sources.curves, figures),
        *diagnosis_section(sources.curves, figures),
        _data(tables, audit, figures),
    ]
    write_text(folder / "index.html", html_page("Hierarchical Prompt Learning: report", sections, _FOOT))
    more = "[index.html](index.html) has all of this and more on one page that needs no network: download and open it."
    write_text(folder / "README.md", markdown_page("Report", [*sections, Section("More", [more], short=True)], folder))
    write_headline(folder, documents, metrics, baselines, params)


def _of_first_set(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["dataset"] == table["dataset"].iloc[0]]


def _run(params: Params) -> dict[str, str]:
    """Say what was trained on and evaluated, and how."""
    data, train = params.active.data, params.active.train
    rendered = " (rendered, in the layouts of these sets)" if params.profile == BUNDLED else ""
    stop = f"; training may stop by validation (patience {train.patience})" if train.patience else ""
    used = {use: " + ".join(each.label for each in data.datasets if use in each.use) + rendered for use in ("train", "test")}
    return {
        "Profile": profile_words(params.profile),
        "Trained on": used["train"],
        "Evaluated on": used["test"],
        "Tasks trained": f"{', '.join(params.tasks)}; seed {params.seed}; {_EPOCHS[train.selection]}{stop}",
    }


def _evaluated(settings: dict) -> dict[str, str]:
    """Say how evaluate was set."""
    label = settings["label"] or "features of the pictures as they are, ranked by cosine"
    without = "; histograms and composed queries are without re-ranking" if settings["rerank"] else ""
    return {"Evaluated with": label + without, "Weight of the sentence in composed queries": f"{settings['composed_weight']:g}"}


def _data(tables: Manifests, audit: dict, figures: Path) -> Section:
    draw_contact_sheet(_people(tables), figures / "contact_sheet.png")
    more = "[More on the data](data_audit.md)."
    sheet = Figure([(figures / "contact_sheet.png", "Some people of each data set, a row each")], "Some people of each data set.")
    return Section("What was read", [counts_table(audit), f"{links_sentence(audit)} {more}", sheet], short=True)


def _people(tables: Manifests) -> list[tuple[str, list[list[Path]]]]:
    """Choose the first people of each data set and split that have most pictures, and some pictures of each."""
    rows = []
    images = tables.images[(tables.images["pid"] > 0) & (~tables.images["role"].isin(["dropped", "unused"]))]
    for (dataset, split), group in images.groupby(["dataset", "split"], sort=True):
        if split == "val":
            continue
        people = group.groupby("pid").size().sort_values(ascending=False, kind="stable").index[:_SHEET_PEOPLE]
        shown = []
        for pid in people:
            pictures = group[group["pid"] == pid].sort_values(["camid", "path"])
            chosen = pictures.iloc[np.linspace(0, len(pictures) - 1, min(_SHEET_PICTURES, len(pictures))).round().astype(int)]
            shown.append(tables.files(chosen))
        rows.append((f"{dataset}, {split}: pid {', '.join(map(str, people))}", shown))
    return rows
