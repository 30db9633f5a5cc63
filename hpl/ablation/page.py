"""reports/ablation/: the ablation's tables and figures as a page, and each as CSV, Markdown, LaTeX, PNG and SVG."""

import os
import textwrap
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from hpl.ablation.tables import (
    COMPARISONS,
    FULL,
    MEASURES,
    Cells,
    Comparison,
    Values,
    deviation,
    further_rows,
    listed,
    read_cells,
    show_changes,
    sweep_frame,
    table_frame,
    values_of,
)
from hpl.config import Ablation, Params, Row
from hpl.files import HplError, output_folder, write_text
from hpl.reports.content import (
    BUNDLED,
    Definitions,
    Figure,
    Section,
    Table,
    difference_words,
    established,
    html_page,
    latex,
    markdown,
    markdown_page,
    profile_words,
    settings_words,
    write_tables,
)
from hpl.reports.figures import GREY, plt, save_png

_SYMBOLS = {"loss.instance_align": "lambda1, loss.instance_align", "loss.prompt_reg": "lambda2, loss.prompt_reg"}
_BLUE = "#1f5fa8"
_PAPER = "the paper\u2020"
_MINOR = ("difference", "p", _PAPER)  # lines that belong to the row above them


def write_ablation(
    folder: Path, cells_folder: Path, params: Params, others: Iterable[str] = (), documents: Iterable[Path] = ()
) -> None:
    """Write README.md, index.html, and each table and figure in every form into `folder`, which is replaced.

    For the bundled profile, the main table is written into the project's own pages too.

    Args:
        cells_folder: holds <row>-<seed>.json.
        others: cells of other parameters, as `cells_of_other_parameters` names them.
        documents: Markdown files that hold the marks of `ablation`.

    Raises:
        HplError: there is no cell; a file is not a cell.
    """
    ablation, profile = params.ablation, params.profile
    cells, missing = read_cells(cells_folder, ablation, others)
    if not cells:
        raise HplError(f"{cells_folder}: none of the {len(ablation.cells)} cells of params.yaml is there; run `make ablation`")
    tables = dict(COMPARISONS)
    if further := further_rows(ablation):
        tables["further"] = further
    with output_folder(folder) as out:
        sections = [_introduction(params, cells, missing)]
        for name, table in tables.items():
            frame = table_frame(table, cells)
            alt = f"{table.title}. {_spoken(frame)}"
            blocks = _write(out, name, frame, table_text(frame, cells, table), draw_rows(frame, cells), alt)
            sections.append(Section(table.title, [table.note, *blocks], short=True))
        sweep = sweep_frame(ablation, params.loss, cells)
        if len(sweep):
            title = "Figure 3: the weights of two losses, one at a time"
            alt = f"{title}: T2I and I2I figures against each weight; the numbers are in the table."
            blocks = _write(out, "figure3", sweep, sweep_text(sweep), draw_sweeps(sweep, ablation, cells), alt)
            sections.append(Section(title, [_sweep_note(ablation), *blocks], short=True))
        rows = [[row, show_changes(changes) + _idle(changes, profile)] for row, changes in ablation.changes.items()]
        sections.append(Section("What each row changes", [Table(["row", "changes"], rows, num_left=2)], short=True))
        write_text(out / "README.md", markdown_page("Ablation", sections, out))
        write_text(out / "index.html", html_page("Ablation", sections, "Written from `data/ablation/cells` by `make ablation`."))
    write_main_table(folder, documents, profile)


def write_main_table(folder: Path, documents: Iterable[Path], profile: str) -> None:
    """Write rows of Table 3 and Figure 1a, and what is established, between the marks of `ablation`; of the bundled profile.

    Args:
        folder: holds table3.csv and figure1a.csv, as `write_ablation` writes them.
        documents: Markdown files.
    """
    rows, sentences = {}, []
    labels = COMPARISONS["figure1a"].labels | COMPARISONS["table3"].labels
    for name in ("table3", "figure1a"):
        for row, group in pd.read_csv(folder / f"{name}.csv").groupby("row", sort=False):
            lines = [line for _, line in group.set_index("measure").loc[[*MEASURES]].iterrows()]
            rows[row] = [labels[row], str(lines[0]["num_seeds"]), *map(_mean, lines)]
            if reference := COMPARISONS[name].reference[row]:
                found = established(dict(zip(MEASURES, map(_paired, lines), strict=True)))
                sentences.append(f"- Against {labels[reference]}, {labels[row]}: {found}.")
    table = markdown(Table(["row", "seeds", *MEASURES], list(rows.values())))
    for document in documents if profile == BUNDLED else ():
        text = (
            f"Profile {profile_words(profile)}; percent, mean ± deviation over seeds; + CMPR is the whole method. A difference "
            "is paired by seed; its sign is established where the 95 % interval, not corrected for the number of comparisons, "
            f"leaves zero out. [The report]({os.path.relpath(folder, document.parent)}/README.md) has all rows."
        )
        write_tables(document, "ablation", "\n".join([table, "", text, *sentences]))


def _write(out: Path, name: str, frame: pd.DataFrame, text: Table, drawing: Drawing, alt: str) -> list[str | Table | Figure]:
    """Write every form of a table and its figure. Returns the blocks that show them."""
    write_text(out / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
    write_text(out / f"{name}.md", markdown(text) + "\n")
    write_text(out / f"{name}.tex", latex(text))
    with matplotlib.rc_context({"svg.hashsalt": "hpl"}):  # the same bytes for the same content
        drawing.savefig(out / f"{name}.svg", metadata={"Date": None, "Creator": None})
    save_png(drawing, out / f"{name}.png")
    ends = {"CSV": "csv", "Markdown": "md", "LaTeX": "tex", "SVG": "svg"}
    links = ", ".join(f"[{kind}]({name}.{end})" for kind, end in ends.items())
    return [text, Figure([(out / f"{name}.png", alt)]), f"The same as {links}."]


def _idle(changes: Row, profile: str) -> str:
    """Say so if a row changes other profiles alone, and so does nothing."""
    idle = changes and all(key.startswith("profiles.") and key.split(".")[1] != profile for key in changes)
    return f" (nothing with the profile {profile}: the row repeats the defaults)" if idle else ""


def _introduction(params: Params, cells: Cells, missing: list[str]) -> Section:
    ablation = params.ablation
    facts = {
        "Profile": profile_words(params.profile),
        "Cells": f"{len(cells)} of {len(ablation.cells)}, each a row with a seed",
        "Seeds": f"{listed(ablation.seeds)}; of sweeps {listed(ablation.sweep_seeds)}",
    }
    if settings := settings_words(params.active.evaluate.switched_on):
        facts["Evaluated"] = settings.removeprefix(", ")
    if missing:
        facts["Missing, and left out of every number"] = "; ".join(missing)
    return Section(
        "How to read it",
        [
            Definitions(facts),
            "Measured on the test split, as the evaluate stage does. Each row: mean ± sample standard deviation over seeds, in "
            "percent; in the figures grey dots are single seeds. A difference is over pairs of the same seed: mean, 95 % "
            "interval and p of a paired t test, not corrected for the number of tests; the second column then counts pairs. It "
            "speaks of the spread between seeds of all that follows one common backbone; the people of the test split, and the "
            "backbone, are the same in all cells.",
            "\u2020 The paper's figures are for CUHK-PEDES + Market-1501 and stand beside ours for the direction of a change "
            "alone.",
        ],
        short=True,
    )


def _sweep_note(ablation: Ablation) -> str:
    seeds = ablation.sweep_seeds
    band = f"The grey band is mean ± deviation of the default over the seeds {listed(ablation.seeds)}"
    if len(seeds) > 1:
        return f"With {len(seeds)} seeds: {listed(seeds)}. {band}."
    rest = "one seed says nothing of the spread, and what lies within the band is not a finding"
    return f"With one seed, {listed(seeds)}. {band}: {rest}."


def _spoken(frame: pd.DataFrame) -> str:
    """Say the means of a table in a sentence, for who cannot see the figure."""
    shown = frame[frame["num_seeds"] > 0]
    parts = [
        f"{label}: " + ", ".join(f"{line.measure} {line.mean:.1f}" for line in group.itertuples())
        for label, group in shown.groupby("label", sort=False)
    ]
    return "Means in percent. " + "; ".join(parts) + "."


def table_text(frame: pd.DataFrame, cells: Cells, table: Comparison) -> Table:
    """Show of each row mean ± standard deviation, the difference with its interval, its p, and the paper's figure."""
    lines = []
    for row, group in frame.groupby("row", sort=False):
        by_measure = group.set_index("measure")
        counts, steps = by_measure["num_seeds"].max(), _range({cell["steps"] for (own, _), cell in cells.items() if own == row})
        lines.append([table.labels[row], str(counts), steps, *(_mean(by_measure.loc[measure]) for measure in MEASURES)])
        lines += [[name, pairs, "", *numbers] for name, pairs, *numbers in _difference_lines(by_measure)]
        if row in table.paper:
            paper = by_measure["paper"]
            lines.append([_PAPER, "", "", *("-" if pd.isna(paper[name]) else f"{paper[name]:.2f}" for name in MEASURES)])
    caption = f"{table.title.partition(':')[0]}, percent: mean ± sample standard deviation"
    return Table(["row", "seeds", "steps", *MEASURES], lines, caption, minor=_MINOR)


def sweep_text(frame: pd.DataFrame) -> Table:
    """Show of each value mean ± standard deviation, and the difference to the default's value with its interval and p."""
    lines = []
    for (key, value, row), group in frame.groupby(["parameter", "value", "row"], sort=False):
        by_measure = group.set_index("measure")
        default = ", the default" if row == FULL else ""
        name = f"{_SYMBOLS.get(key, key)} = {value:g}{default}"
        lines.append([name, str(by_measure["num_seeds"].max()), *(_mean(by_measure.loc[measure]) for measure in MEASURES)])
        lines += _difference_lines(by_measure)
    return Table(["weight", "seeds", *MEASURES], lines, "Figure 3, percent", minor=_MINOR)


def _range(numbers: set[int]) -> str:
    return "-" if not numbers else f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _mean(line: pd.Series) -> str:
    if not line["num_seeds"]:
        return "-"
    return f"{line['mean']:.2f}" + ("" if pd.isna(line["sd"]) else f" ± {line['sd']:.2f}")


def _difference_lines(by_measure: pd.DataFrame) -> list[list[str]]:
    """Show the difference with its interval, and p where a measure has one; first the number of pairs. No line without pairs."""
    if not by_measure["difference_pairs"].any():
        return []
    found = [by_measure.loc[measure] for measure in MEASURES]
    lines = [["difference", str(by_measure["difference_pairs"].max()), *map(_difference, found)]]
    if by_measure["difference_p"].notna().any():
        lines.append(["p", "", *(_p(line["difference_p"]) for line in found)])
    return lines


def _difference(line: pd.Series) -> str:
    if not line["difference_pairs"]:
        return "-"
    return difference_words(*_paired(line), digits=2)


def _paired(line: pd.Series) -> tuple[float, tuple[float, float] | None]:
    ends = line["difference_ci_low"], line["difference_ci_high"]
    return line["difference"], None if pd.isna(ends[0]) else ends


def _p(p: float) -> str:
    return "-" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def draw_rows(frame: pd.DataFrame, cells: Cells) -> Drawing:
    """Draw a panel a measure: the rows from left to right, each seed a grey dot, mean and standard deviation in blue."""
    figure, axes = plt.subplots(2, 2, figsize=(6.6, 5.2), layout="constrained")
    labels = frame.drop_duplicates("row").set_index("row")["label"]
    for axis, measure in zip(axes.flat, MEASURES, strict=True):
        for place, row in enumerate(labels.index):
            _dots(axis, place, values_of(cells, row, measure))
        axis.set(title=f"{measure}, %", xticks=range(len(labels)), xlim=(-0.5, len(labels) - 0.5))
        axis.set_xticklabels([textwrap.fill(label, 10) for label in labels], fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    return figure


def draw_sweeps(frame: pd.DataFrame, ablation: Ablation, cells: Cells) -> Drawing:
    """Draw a column a weight, a panel a measure: the values on the axis, seeds, means and deviations as in `draw_rows`.

    Behind them, as a grey band, mean and deviation of the default over all of its seeds, which are more than those of a sweep.
    """
    keys = list(frame["parameter"].unique())
    figure, axes = plt.subplots(
        len(MEASURES), len(keys), figsize=(3.3 * len(keys), 8.0), squeeze=False, sharex="col", layout="constrained"
    )
    for column, key in zip(axes.T, keys, strict=True):
        for axis, measure in zip(column, MEASURES, strict=True):
            lines = frame[(frame["parameter"] == key) & (frame["measure"] == measure)]
            default = values_of(cells, FULL, measure)
            if spread := deviation(default):
                mean = np.mean(list(default.values()))
                axis.axhspan(mean - spread, mean + spread, color=GREY, alpha=0.15, linewidth=0)
            axis.plot(lines["value"], lines["mean"], color=_BLUE, linewidth=1.2)
            for row, value in zip(lines["row"], lines["value"], strict=True):
                _dots(axis, value, values_of(cells, row, measure, ablation.sweep_seeds))
            axis.set(title=f"{measure}, %", xticks=lines["value"])
            axis.title.set_fontsize(9)
            axis.grid(alpha=0.3)
        column[-1].set_xlabel(_SYMBOLS.get(key, key))
    return figure


def _dots(axis: plt.Axes, place: float, values: Values) -> None:
    if not values:
        return
    axis.plot([place] * len(values), list(values.values()), ".", color=GREY, alpha=0.6, markersize=6)
    axis.errorbar(
        [place], [np.mean(list(values.values()))], yerr=deviation(values), fmt="o", color=_BLUE, capsize=4, markersize=5
    )
