"""The result tables of the report and of the project's own pages: trained, zero-shot and floors, and what a gain establishes."""

import os
from collections.abc import Iterable
from pathlib import Path

from hpl.config import Params
from hpl.reports.content import (
    BUNDLED,
    FIGURE_LABELS,
    MAIN_FIGURES,
    Definitions,
    Section,
    Table,
    difference_words,
    established,
    figure_labels,
    interval_of,
    markdown,
    profile_words,
    settings_words,
    with_interval,
    write_tables,
)
from hpl.tasks import I2I, T2I, TASKS, Task

_MISSING = {
    **{task.name: task.title.lower() for task in TASKS.values()},
    **{f"open_set_{task.name}": f"strangers, {task.title.lower()}" for task in TASKS.values()},
    "composed": "composed queries",
}
_ASKED_BY = {"picture": "picture alone", "sentence": "sentence alone", "both": "picture and sentence"}  # composed queries


def task_tables(metrics: dict, baselines: dict) -> list[Table]:
    """Tabulate for each task the trained model, the backbone before training, what the first has more, and the floors."""
    floors = {
        "colour histogram": baselines.get("colour_histogram", {}),
        "colour histogram, middle of the picture": baselines.get("colour_histogram_middle", {}),
    }
    tables, settings = [], settings_words(metrics.get("settings", {}))
    for task in tasks_of(metrics):
        labels, gain = figure_labels(task), metrics.get("gain_over_zero_shot", {}).get(task.name)
        rows = [
            [f"HPL, trained{settings}", *_cells(metrics[task.name], labels)],
            [f"same backbone, zero-shot{settings}", *_cells(baselines["zero_shot"][task.name], labels)],
        ]
        if gain:
            rows.append(["gain over zero-shot", *(_gain(gain, name) if name in gain else "" for name in labels)])
        rows += [[name, *_cells(floor[task.name], labels)] for name, floor in floors.items() if task.name in floor]
        tables.append(Table([f"{task.short}, percent", *labels.values()], rows))
    return tables


def tasks_of(metrics: dict) -> list[Task]:
    """List the tasks that were evaluated."""
    return [task for task in TASKS.values() if task.name in metrics]


def not_scored(metrics: dict) -> dict[str, str]:
    """List what metrics.json says was not scored: data set and figure -> the reason."""
    return {
        f"{name}, {_MISSING.get(figure, figure)}": reason
        for name, reasons in metrics.get("not_scored", {}).items()
        for figure, reason in reasons.items()
    }


def _cells(figures: dict, names: Iterable[str]) -> list[str]:
    return [with_interval(figures, name) for name in names]


def _gain(figures: dict, name: str) -> str:
    return difference_words(figures[name], interval_of(figures, name), digits=1)


def copies_blocks(metrics: dict, audit: dict) -> list[str | Table]:
    """Say of each data set what its gallery held of the queries themselves; nothing where none held any."""
    first = metrics.get("datasets", {}).get(I2I.name, "")
    rows = []
    for name, figures in [(first, metrics), *metrics.get("others", {}).items()]:
        found = figures.get(I2I.name, {})
        ignored = found.get("num_copies_ignored", 0)
        near = audit["datasets"].get(name, {}).get("query_copies", {}).get("near", 0)
        rows += [[name, f"{ignored:,}", f"{near:,}"]] if found and ignored + near else []
    text = (
        "Queries in their own gallery: a gallery picture with the query's own pixels is the query: it is ignored for that "
        "query, in all figures of pictures as queries. A near-copy, perhaps the query re-encoded, resized or cropped, counts as "
        "any other picture: where there are many, the figures are too high."
    )
    header = ["data set", "pairs of one picture, ignored", "queries with a near-copy"]
    return [text, Table(header, rows)] if rows else []


def results_section(metrics: dict, baselines: dict, histograms: dict, audit: dict) -> Section:
    """Show the tables of the first data set of each task, and say what their columns and rows are."""
    queries = ". ".join(
        f"{task.short}: {metrics[task.name]['num_queries']:,} {task.asks} as queries "
        f"({metrics[task.name]['num_skipped']:,} skipped without a match)"
        for task in tasks_of(metrics)
    )
    text = (
        f"{queries}. Rk: a right picture among the first k; mAP: mean of the precision at each right picture; mINP: right "
        f"pictures over the rank of the last one; R-sum: {' + '.join(f'R{rank}' for rank in T2I.summed_ranks)}. In brackets: 95 "
        "% of bootstrap samples of the test people; how far another training run would move a figure is not in it. Ties count "
        "against us. The zero-shot row is the backbone before stage II; the gain over it is paired: its bracket is the interval "
        "of the difference, not the difference of two intervals."
    )
    if histograms:
        text += (
            f" The histogram rows learn nothing: each is the best of eight counts of colour ({histograms['colour_histogram']}; "
            f"{histograms['colour_histogram_middle']}), chosen by mAP on the test split, in their favour; over the whole "
            "picture and without a fifth of the width at each side, where the background is."
        )
    missing = {f"Not scored: {name}": reason for name, reason in not_scored(metrics).items()}
    reasons = [Definitions(missing)] if missing else []
    tables, copies = task_tables(metrics, baselines), copies_blocks(metrics, audit)
    return Section("Results on the test split", [*tables, text, *copies, *reasons], short=True)


def write_headline(folder: Path, documents: Iterable[Path], metrics: dict, baselines: dict, params: Params) -> None:
    """Write result tables, what was run and which gains are established, between the marks of `results`; of the bundled profile.

    Args:
        folder: of the report that the text points to.
        documents: Markdown files.
    """
    queries = " and ".join(f"{metrics[task.name]['num_queries']:,} {task.asks}" for task in tasks_of(metrics))
    gains = {
        f"{TASKS[task].short} {FIGURE_LABELS[name]}": (gain[name], interval_of(gain, name))
        for task, gain in metrics.get("gain_over_zero_shot", {}).items()
        for name in MAIN_FIGURES
    }
    tables = "\n\n".join(map(markdown, task_tables(metrics, baselines)))
    for document in documents if params.profile == BUNDLED else ():
        text = (
            f"Profile {profile_words(params.profile)}, seed {params.seed}, test split: {queries} as queries. In brackets 95 % "
            "intervals over the test people, of a gain paired; its sign is established where the interval leaves zero out.\n"
            f"Gains over zero-shot: {established(gains)}. [The report]({os.path.relpath(folder, document.parent)}/README.md) "
            "says what each row is; `reports/index.html`, one page, has more and opens offline."
        )
        write_tables(document, "results", f"{tables}\n\n{text}")


def other_tables(metrics: dict, baselines: dict) -> list[Table]:
    """Tabulate for each task the further data sets that were evaluated, trained and zero-shot."""
    others, before = metrics.get("others", {}), baselines["zero_shot"].get("others", {})
    tables, settings = [], settings_words(metrics.get("settings", {}))
    for task in TASKS.values():
        rows, labels = [], figure_labels(task)
        for name in sorted(name for name in others if task.name in others[name]):
            rows.append([f"{name}{settings}", *_cells(others[name][task.name], labels)])
            rows.append([f"{name}, zero-shot{settings}", *_cells(before[name][task.name], labels)])
        if rows:
            tables.append(Table([f"{task.short}, percent", *labels.values()], rows))
    return tables


def further_sections(metrics: dict, baselines: dict) -> list[Section]:
    """Show further data sets, composed queries and strangers, each if it was evaluated."""
    sections = []
    if tables := other_tables(metrics, baselines):
        text = "The same model on the test split of further sets: across domains where it was not trained on them."
        sections.append(Section("Other data sets", [text, *tables], short=True))
    if composed := metrics.get("composed"):
        sections.append(_composed(composed))
    settings, opened = settings_words(metrics.get("settings", {})), metrics.get("open_set", {})
    rows = [
        [
            f"{task.short}{settings}",
            with_interval(found, "detection_rate"),
            f"{found['num_known']:,}",
            f"{found['num_unknown']:,}",
        ]
        for task in TASKS.values()
        if (found := opened.get(task.name))
    ]
    if rows:
        text = (
            "Half of the test people, drawn by a seed, leave the gallery; at most one in a hundred of their queries may score "
            "above the threshold. Found: queries of the people who stayed whose best picture is right and above it. With few "
            "strangers the threshold rests on one or two scores, so the figure is rough; the interval draws strangers anew too."
        )
        header = ["task", "found, percent", "queries of known people", "of strangers"]
        sections.append(Section("Strangers", [text, Table(header, rows)], short=True))
    return sections


def _composed(figures: dict) -> Section:
    rows = [[name, *_cells(figures[key], MAIN_FIGURES)] for key, name in _ASKED_BY.items()]
    for half in ("picture", "sentence"):
        rows.append([f"gain over the {half}", *(_gain(figures[f"gain_over_{half}"], name) for name in MAIN_FIGURES)])
    counts, labels = figures["counts"], [FIGURE_LABELS[name] for name in MAIN_FIGURES]
    text = (
        f"The query is a picture and a sentence about another picture of the same person: {counts['num_queries']:,} queries "
        f"({counts['num_skipped']:,} skipped, whose person has no other picture that counts). Their weighted mean, where "
        "sentences and pictures are embedded together, ranks the gallery along with the picture's v_i2i; above it each of the "
        "two alone on the same queries and galleries. A gain is paired."
    )
    if copies := counts.get("num_copies_ignored"):
        text += f" {copies:,} times a gallery picture had the pixels of the query's picture, and was ignored."
    return Section("Composed queries", [text, Table(["query, percent", *labels], rows)], short=True)
