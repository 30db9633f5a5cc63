"""reports/README.md and reports/index.html: results, where they come from, and what the model finds and confuses."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from hpl.files import read_json, write_text
from hpl.manifests.tables import Manifests
from hpl.reports.content import Facts, Figure, Section, Table, html_page, markdown, markdown_page
from hpl.reports.data_audit import counts_table, links_sentence
from hpl.reports.figures import draw_curves
from hpl.reports.findings import TASKS, attention, by_attribute, by_camera, projection, rank_lists, similarities
from hpl.reports.labels import FIGURES, interval_of, settings_words, signed, with_interval
from hpl.reports.retrieval_figures import draw_contact_sheet

QUERIES = {"t2i": "captions", "i2i": "pictures"}
NUM_PEOPLE = 2  # people of each data set and split in the contact sheet
NUM_PICTURES = 5  # of each of them


def write_report(
    folder: Path,
    manifests: Path,
    evaluation: Path,
    curves: dict[str, Path],
    metrics: Path,
    baselines: Path,
    settings: dict[str, str],
    seed: int,
) -> None:
    """Render both pages and their pictures.

    Args:
        folder: holds README.md, index.html and figures/.
        curves: title -> CSV.
        settings: what stands above the results, name -> value.
        seed: of the random queries and the projection.
    """
    tables, audit = Manifests(manifests), read_json(manifests / "audit.json")
    scored, figures = read_json(metrics), folder / "figures"
    tasks = [task for task in TASKS if task in scored]
    lists, scores = (
        {task: _of_first_set(pd.read_parquet(evaluation / f"{name}_{task}.parquet")) for task in tasks}
        for name in ("rank_lists", "scores")
    )
    sections = [
        Section("What was run", [Facts(settings | _evaluated(read_json(evaluation / "settings.json")))], short=True),
        _results(scored, read_json(baselines), read_json(evaluation / "histograms.json")),
        *_further_results(scored, read_json(baselines)),
        *(rank_lists(task, lists[task], scores[task], tables, seed, figures) for task in tasks),
        *attention(np.load(evaluation / "attention.npz"), tables, figures),
        similarities(pd.read_parquet(evaluation / "similarities.parquet"), figures),
        *(by_camera(scores["i2i"]) if "i2i" in tasks else []),
        *(by_attribute(lists["t2i"], scores["t2i"], tables, figures) if "t2i" in tasks else []),
        *(projection(np.load(evaluation / "tokens.npz"), tables, seed, figures) if "i2i" in tasks else []),
        _curves(curves, figures),
        _data(tables, audit, figures),
    ]
    write_text(folder / "index.html", html_page("Hierarchical Prompt Learning: report", sections, FOOT))
    more = Section(
        "More",
        ["[index.html](index.html) has all of this and more on one page that needs no network: download and open it."],
        True,
    )
    write_text(folder / "README.md", markdown_page("Report", [*sections, more], folder))


FOOT = (
    "Written by the `report` stage from `data/evaluation`, `reports/metrics.json` and `reports/baselines.json`. More on the "
    "data: [data_audit.md](data_audit.md). If ablations were run, they stand in [ablation/index.html](ablation/index.html)."
)


def _of_first_set(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["dataset"] == table["dataset"].iloc[0]]


def _evaluated(settings: dict) -> dict[str, str]:
    """How evaluate was set, in words."""
    label = settings["label"] or "features of the pictures as they are, ranked by cosine"
    without = "; histograms and composed queries are without re-ranking" if settings["rerank"] else ""
    return {"Evaluated with": label + without, "Weight of the sentence in composed queries": f"{settings['composed_weight']:g}"}


def task_tables(metrics: dict, baselines: dict) -> list[Table]:
    """A table a task: the trained model, the backbone before training, what the first has more, and the floor; with 95 % intervals."""
    floors = {
        "colour histogram": baselines.get("colour_histogram", {}),
        "colour histogram, middle of the picture": baselines.get("colour_histogram_middle", {}),
    }
    tables, settings = [], settings_words(metrics.get("settings", {}))
    for task, title in TASKS.items():
        if task not in metrics:
            continue
        names = _columns(task)
        rows = [
            [f"HPL, trained{settings}", *_cells(metrics[task], names)],
            [f"same backbone, zero-shot{settings}", *_cells(baselines["zero_shot"][task], names)],
        ]
        if gain := metrics.get("gain_over_zero_shot", {}).get(task):
            rows.append(["gain over zero-shot", *(_gain(gain, name) if name in gain else "" for name in names)])
        rows += [[name, *_cells(floor[task], names)] for name, floor in floors.items() if task in floor]
        tables.append(Table([f"{title}, percent", *names.values()], rows))
    return tables


def _columns(task: str) -> dict[str, str]:
    """Figures of a task, and what they are called; text-to-image has R-sum, the sum of the three."""
    return FIGURES | ({"rsum": "R-sum"} if task == "t2i" else {})


def result_table(metrics: dict, baselines: dict) -> str:
    """The same as Markdown."""
    return "\n\n".join(markdown(table) for table in task_tables(metrics, baselines))


def _cells(figures: dict, names: Iterable[str]) -> list[str]:
    return [with_interval(figures, name) for name in names]


def _gain(figures: dict, name: str) -> str:
    """A difference in points of percent, with its interval."""
    low, high = (signed(end, 1) for end in interval_of(figures, name))
    return f"{signed(figures[name])} ({low} to {high})"


def _results(metrics: dict, baselines: dict, histograms: dict) -> Section:
    counts = {task: (metrics[task]["num_queries"], metrics[task]["num_skipped"]) for task in TASKS if task in metrics}
    queries = ". ".join(
        f"{TASKS[task]}: {asked:,} {QUERIES[task]} as queries ({skipped:,} skipped without a match)"
        for task, (asked, skipped) in counts.items()
    )
    text = (
        f"{queries}. Rk: a right picture among the first k; mAP: mean of the precision at each right picture; mINP: right pictures "
        "over the rank of the last one; R-sum: R1 + R5 + R10. In brackets: 95 % of bootstrap samples of the test people; how far another "
        "training run would move a figure is not in it. Ties count against us. The zero-shot row is the backbone before stage II; "
        "the gain over it is paired: its bracket is the interval of the difference, not the difference of two intervals."
    )
    if histograms:
        text += (
            " The histogram rows learn nothing: each is the best of eight counts of colour "
            f"({histograms['colour_histogram']}; {histograms['colour_histogram_middle']}), chosen by mAP on the test split, in their "
            "favour; over the whole picture and without a fifth of the width at each side, where the background is."
        )
    return Section("Results on the test split", [*task_tables(metrics, baselines), text], short=True)


def other_tables(metrics: dict, baselines: dict) -> list[Table]:
    """A table a task of the further data sets that were evaluated, trained and zero-shot."""
    others, before = metrics.get("others", {}), baselines["zero_shot"].get("others", {})
    tables, settings = [], settings_words(metrics.get("settings", {}))
    for task, title in TASKS.items():
        rows = []
        for name in sorted(name for name in others if task in others[name]):
            rows.append([f"{name}{settings}", *_cells(others[name][task], _columns(task))])
            rows.append([f"{name}, zero-shot{settings}", *_cells(before[name][task], _columns(task))])
        if rows:
            tables.append(Table([f"{title}, percent", *_columns(task).values()], rows))
    return tables


def _further_results(metrics: dict, baselines: dict) -> list[Section]:
    sections = []
    if tables := other_tables(metrics, baselines):
        text = "The same model on the test split of further sets: across domains where it was not trained on them."
        sections.append(Section("Other data sets", [text, *tables], short=True))
    if composed := metrics.get("composed"):
        names = {"picture": "picture alone", "sentence": "sentence alone", "both": "picture and sentence"}
        rows = [[name, *_cells(composed[key], ["rank1", "mAP"])] for key, name in names.items()]
        for half in ("picture", "sentence"):
            rows.append([f"gain over the {half}", *(_gain(composed[f"gain_over_{half}"], name) for name in ("rank1", "mAP"))])
        counts = composed["counts"]
        text = (
            f"The query is a picture and a sentence about another picture of the same person: {counts['num_queries']:,} queries "
            f"({counts['num_skipped']:,} skipped, whose person has no other picture that counts). Their weighted mean, where sentences and pictures are "
            "embedded together, ranks the gallery along with the picture's v_i2i; above it each of the two alone on the same queries and "
            "galleries. A gain is paired."
        )
        sections.append(Section("Composed queries", [text, Table(["query, percent", "R1", "mAP"], rows)], short=True))
    if opened := metrics.get("open_set"):
        rows = [
            [
                f"{TASKS[task]}{settings_words(metrics.get('settings', {}))}",
                *_cells(opened[task], ["detection_rate"]),
                f"{opened[task]['num_known']:,}",
                f"{opened[task]['num_unknown']:,}",
            ]
            for task in TASKS
            if opened.get(task)
        ]
        text = (
            "Half of the test people, drawn by a seed, leave the gallery; at most one in a hundred of their queries may score above "
            "the threshold. Found: queries of the people who stayed whose best picture is right and above it. With few strangers the threshold "
            "rests on one or two scores, so the figure is rough; the interval draws strangers anew too."
        )
        if rows:
            header = ["task", "found, percent", "queries of known people", "of strangers"]
            sections.append(Section("Strangers", [text, Table(header, rows)], short=True))
    return sections


def _curves(curves: dict[str, Path], figures: Path) -> Section:
    pictures, words = [], []
    for title, file in curves.items():
        table = pd.read_csv(file)
        validated = [name for name in table if name.startswith("val_")]
        losses = table.drop(columns=["lr", *validated], errors="ignore")
        path = figures / f"curves_{file.stem}.png"
        if (losses.drop(columns="epoch") != 0).any(axis=None):
            draw_curves(title, losses, "loss, mean of the epoch", path)
            pictures.append((path, f"Losses by epoch: {title}"))
        if table[validated].notna().any(axis=None):
            names = {name: name.removeprefix("val_").replace("_", " ") for name in validated}
            path = figures / f"curves_{file.stem}_validation.png"
            draw_curves(
                f"{title}: validation", table[["epoch", *validated]].rename(columns=names), "percent", path, logarithmic=False
            )
            pictures.append((path, f"Figures on the validation split by epoch: {title}"))
            words = ["Validation has people and a gallery of its own: its figures do not compare with those of the test split."]
    return Section("Curves", [*words, Figure(pictures)], short=True)


def _data(tables: Manifests, audit: dict, figures: Path) -> Section:
    draw_contact_sheet(_people(tables), figures / "contact_sheet.png")
    more = "[More on the data](data_audit.md)."
    sheet = Figure([(figures / "contact_sheet.png", "Some people of each data set, a row each")], "Some people of each data set.")
    return Section("What was read", [counts_table(audit), f"{links_sentence(audit)} {more}", sheet], short=True)


def _people(tables: Manifests) -> list[tuple[str, list[list[Path]]]]:
    """The first people of each data set and split that have most pictures, at most NUM_PICTURES of each."""
    rows = []
    images = tables.images[(tables.images["pid"] > 0) & (~tables.images["role"].isin(["dropped", "unused"]))]
    for (dataset, split), group in images.groupby(["dataset", "split"], sort=True):
        if split == "val":
            continue
        people = group.groupby("pid").size().sort_values(ascending=False, kind="stable").index[:NUM_PEOPLE]
        shown = []
        for pid in people:
            pictures = group[group["pid"] == pid].sort_values(["camid", "path"])
            chosen = pictures.iloc[np.linspace(0, len(pictures) - 1, min(NUM_PICTURES, len(pictures))).round().astype(int)]
            shown.append(tables.files(chosen))
        rows.append((f"{dataset}, {split}: pid {', '.join(map(str, people))}", shown))
    return rows
