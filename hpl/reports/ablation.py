"""reports/ablation/: the paper's tables 3 and 4 and figures 1a and 3 from the ablation's cells, each row with all its seeds.

Every number is a mean over seeds with its sample standard deviation. A difference is paired: both rows have the same seeds, and what is
tested is the mean of the differences (Student's t). No seed is chosen, and a cell that is not there is listed, not guessed.
"""

import base64
import html
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from hpl.config import Ablation, Loss, Row
from hpl.files import HplError, output_folder, read_json, write_text
from hpl.reports.figures import GREY, plt, save_png

MEASURES = {"T2I R1": ("t2i", "rank1"), "T2I mAP": ("t2i", "mAP"), "I2I R1": ("i2i", "rank1"), "I2I mAP": ("i2i", "mAP")}
FULL = "hpl_cmpr"  # the row that changes nothing
SYMBOLS = {"loss.instance_align": "lambda1, loss.instance_align", "loss.prompt_reg": "lambda2, loss.prompt_reg"}
BLUE = "#1f5fa8"
PAPER = "the paper*"
MINUS = "\u2212"
Values = dict[int, float]  # seed -> percent
Cells = dict[tuple[str, int], dict]  # (row, seed) -> the cell's JSON


@dataclass(frozen=True)
class Table:
    """Rows that stand together. `reference` is the row that each is compared with, None for the first."""

    title: str
    labels: dict[str, str]  # row -> what it is called here
    reference: dict[str, str | None]
    note: str
    paper: dict[str, dict[str, float]] = field(default_factory=dict)  # row -> measure -> percent


def _chain(rows: Iterable[str]) -> dict[str, str | None]:
    rows = list(rows)
    return dict(zip(rows, [None, *rows[:-1]], strict=True))


def _star(rows: Iterable[str], centre: str) -> dict[str, str | None]:
    return {row: None if row == centre else centre for row in rows}


def _paper(values: dict[str, tuple[float, ...]], measures: Iterable[str]) -> dict[str, dict[str, float]]:
    return {row: dict(zip(measures, numbers, strict=True)) for row, numbers in values.items()}


TABLE_3 = {"baseline": "baseline", "trt": "+ TRT", "hpl": "+ HPL", "hpl_cmpr": "+ CMPR"}
TABLE_4 = {"trt": "none", "text_guided": "text-guided", "vision_guided": "vision-guided", "hpl": "both"}
FIGURE_1A = {"baseline": "both tasks", "t2i_only": "T2I alone", "i2i_only": "I2I alone", FULL: "the whole method"}
TABLES = {
    "table3": Table(
        "Table 3: the parts of the method, one after the other",
        TABLE_3,
        _chain(TABLE_3),
        "TRT: the second class token. HPL: prompts without the cross-modal regularisation. CMPR: that regularisation. Differences are to "
        "the row above.",
        _paper(
            {
                "baseline": (74.22, 70.45, 94.50, 86.91),
                "trt": (75.27, 70.80, 95.36, 88.98),
                "hpl": (75.60, 70.88, 95.57, 89.72),
                "hpl_cmpr": (76.28, 70.89, 95.99, 89.82),
            },
            MEASURES,
        ),
    ),
    "table4": Table(
        "Table 4: the two halves of the instance alignment",
        TABLE_4,
        _star(TABLE_4, "trt"),
        "All without CMPR. The row none has no prompts at all, so it also lacks the identity prompts that the other three have. Differences "
        "are to the row none.",
        _paper(
            {
                "trt": (75.27, 88.98),
                "text_guided": (75.58, 89.35),
                "vision_guided": (75.60, 89.59),
                "hpl": (75.60, 89.72),
            },
            ["T2I R1", "I2I mAP"],
        ),
    ),
    "figure1a": Table(
        "Figure 1a: the baseline trained for both tasks or for one alone, and the whole method for both",
        FIGURE_1A,
        _star(FIGURE_1A, "baseline"),
        "The first three rows have one class token and no prompts. T2I alone is not trained to match pictures, I2I alone is not trained on captions: their figures of "
        "the other task are what that training leaves of it. All rows take the same number of steps. Differences are to the row both tasks.",
    ),
}


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences in points of percent; with two pairs or more the 95 % interval; `p` where the differences vary."""

    mean: float
    num_pairs: int
    low: float | None = None
    high: float | None = None
    p: float | None = None


def paired_difference(values: Values, reference: Values) -> Difference | None:
    """`values` minus `reference` over the seeds that both have: Student's t for pairs, two-sided. None if they share no seed.

    If all differences are the same, the interval is that number and no p is given: the t statistic does not exist.
    """
    seeds = sorted(set(values) & set(reference))
    if not seeds:
        return None
    differences = np.array([values[seed] - reference[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(seeds) < 2:
        return Difference(mean, len(seeds))
    if np.ptp(differences) < 1e-9:
        return Difference(mean, len(seeds), mean, mean)
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(0.95)
    return Difference(mean, len(seeds), float(interval.low), float(interval.high), float(test.pvalue))


def deviation(values: Values) -> float | None:
    """Sample standard deviation over seeds; None for fewer than two."""
    return float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else None


def read_cells(folder: Path, ablation: Ablation) -> tuple[Cells, list[str]]:
    """The cells that params.yaml lists, and a line for each row of which some are not there, or cell that was made of an older row.

    Raises HplError for a file that is not a cell.
    """
    cells, absent, older = {}, {}, []
    for row, seed in ablation.cells:
        path = Path(folder) / f"{row}-{seed}.json"
        if not path.is_file():
            absent.setdefault(row, []).append(seed)
            continue
        cell = read_json(path)
        if not isinstance(cell, dict) or not {"changes", "metrics", "steps"} <= set(cell):
            raise HplError(f"{path}: expected a cell with changes, metrics and steps; run `dvc repro ablation/dvc.yaml` again")
        if cell["changes"] == ablation.changes[row]:
            cells[row, seed] = cell
        else:
            older.append(f"{row}, seed {seed} (there is one of older changes: {_changes(cell['changes'])})")
    return cells, [f"{row}, seed{'s' * (len(seeds) > 1)} {_list(seeds)}" for row, seeds in absent.items()] + older


def values_of(cells: Cells, row: str, measure: str, seeds: Iterable[int] | None = None) -> Values:
    """What the cells of a row have of a measure, by seed; of some seeds alone, if given."""
    task, name = MEASURES[measure]
    chosen = None if seeds is None else set(seeds)
    return {
        seed: cell["metrics"][task][name]
        for (own, seed), cell in sorted(cells.items())
        if own == row and task in cell["metrics"] and (chosen is None or seed in chosen)
    }


def table_frame(table: Table, cells: Cells) -> pd.DataFrame:
    """One line for each row and measure: what the CSV holds."""
    lines = []
    for row, label in table.labels.items():
        for measure in MEASURES:
            line = {"row": row, "label": label, **_numbers(values_of(cells, row, measure), measure)}
            reference = table.reference[row]
            against = (
                paired_difference(values_of(cells, row, measure), values_of(cells, reference, measure)) if reference else None
            )
            lines.append({**line, **_against(reference, against), "paper": table.paper.get(row, {}).get(measure)})
    return pd.DataFrame(lines)


def sweep_frame(ablation: Ablation, loss: Loss, cells: Cells) -> pd.DataFrame:
    """One line for each value of each swept weight and measure; the default's value is the row hpl_cmpr, with the sweep's seeds."""
    lines = []
    for key in _swept(ablation):
        points = {row: changes[key] for row, changes in ablation.sweeps.items() if list(changes) == [key]}
        points[FULL] = getattr(loss, key.removeprefix("loss."))
        for row, value in sorted(points.items(), key=lambda point: point[1]):
            for measure in MEASURES:
                own = values_of(cells, row, measure, ablation.sweep_seeds)
                reference = None if row == FULL else FULL
                against = paired_difference(own, values_of(cells, FULL, measure, ablation.sweep_seeds)) if reference else None
                line = {"parameter": key, "value": value, "row": row, **_numbers(own, measure)}
                lines.append({**line, **_against(reference, against)})
    return pd.DataFrame(lines)


def _swept(ablation: Ablation) -> list[str]:
    """The weights that sweeps change one at a time."""
    keys = [next(iter(row)) for row in ablation.sweeps.values() if len(row) == 1]
    return [key for key in dict.fromkeys(keys) if key.startswith("loss.")]


def _numbers(values: Values, measure: str) -> dict:
    mean = float(np.mean(list(values.values()))) if values else None
    return {"measure": measure, "num_seeds": len(values), "mean": mean, "sd": deviation(values)}


def _against(reference: str | None, difference: Difference | None) -> dict:
    found = difference or Difference(np.nan, 0)
    interval = {"difference_ci_low": found.low, "difference_ci_high": found.high, "difference_p": found.p}
    return {"reference": reference, "difference": found.mean, "difference_pairs": found.num_pairs, **interval}


def further_rows(ablation: Ablation) -> Table | None:
    """The rows of params.yaml that belong to no table or sweep above, compared with the default; None if there are none."""
    known = {row for table in TABLES.values() for row in table.labels}
    swept = {row for row, changes in ablation.sweeps.items() if len(changes) == 1 and next(iter(changes)) in _swept(ablation)}
    rows = [row for row in ablation.changes if row not in known | swept]
    if not rows:
        return None
    labels = {FULL: FULL, **{row: row for row in rows}}
    return Table(
        "Further rows", labels, _star(labels, FULL), f"Rows of params.yaml beyond the paper's. Differences are to {FULL}."
    )


# A table as text: Markdown, HTML and LaTeX render the same header and lines.


@dataclass(frozen=True)
class Text:
    header: list[str]
    lines: list[list[str]]
    align: str = "---:|"  # of all columns but the first, in Markdown


def table_text(frame: pd.DataFrame, cells: Cells, table: Table) -> Text:
    """Lines of each row: mean ± standard deviation, the difference with its interval, its p, and the paper's figure."""
    lines = []
    for row, group in frame.groupby("row", sort=False):
        by_measure = group.set_index("measure")
        counts, steps = by_measure["num_seeds"].max(), _range({cell["steps"] for (own, _), cell in cells.items() if own == row})
        lines.append([table.labels[row], str(counts), steps, *(_mean(by_measure.loc[measure]) for measure in MEASURES)])
        if table.reference[row]:
            lines += [[name, pairs, "", *numbers] for name, pairs, *numbers in _difference_lines(by_measure)]
        if row in table.paper:
            paper = by_measure["paper"]
            lines.append([PAPER, "", "", *("-" if pd.isna(paper[name]) else f"{paper[name]:.2f}" for name in MEASURES)])
    return Text(["percent", "seeds", "steps", *MEASURES], lines)


def sweep_text(frame: pd.DataFrame) -> Text:
    """Lines of each value: mean ± standard deviation, and the difference to the default's value with its interval and p."""
    lines = []
    for (key, value, row), group in frame.groupby(["parameter", "value", "row"], sort=False):
        by_measure = group.set_index("measure")
        default = ", the default" if row == FULL else ""
        name = f"{SYMBOLS.get(key, key)} = {value:g}{default}"
        lines.append([name, str(by_measure["num_seeds"].max()), *(_mean(by_measure.loc[measure]) for measure in MEASURES)])
        if row != FULL:
            lines += _difference_lines(by_measure)
    return Text(["percent", "seeds", *MEASURES], lines)


def _range(numbers: set[int]) -> str:
    return "-" if not numbers else f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _mean(line: pd.Series) -> str:
    if not line["num_seeds"]:
        return "-"
    return f"{line['mean']:.2f}" + ("" if pd.isna(line["sd"]) else f" ± {line['sd']:.2f}")


def _difference_lines(by_measure: pd.DataFrame) -> list[list[str]]:
    """The difference with its interval and, where a measure has one, a line of p; first the number of pairs."""
    found = [by_measure.loc[measure] for measure in MEASURES]
    lines = [["difference", str(by_measure["difference_pairs"].max()), *map(_difference, found)]]
    if by_measure["difference_p"].notna().any():
        lines.append(["p", "", *(_p(line["difference_p"]) for line in found)])
    return lines


def _difference(line: pd.Series) -> str:
    if not line["difference_pairs"]:
        return "-"
    text = _signed(line["difference"])
    if not pd.isna(line["difference_ci_low"]):
        text += f" ({_signed(line['difference_ci_low'])} to {_signed(line['difference_ci_high'])})"
    return text


def _signed(number: float) -> str:
    return f"{number:+z.2f}".replace("-", MINUS)


def _p(p: float) -> str:
    return "-" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(text: Text) -> str:
    """A Markdown table."""
    rows = ["| " + " | ".join(line) + " |" for line in (text.header, *text.lines)]
    return "\n".join([rows[0], "|---|" + text.align * (len(text.header) - 1), *rows[1:]])


def latex(text: Text) -> str:
    """A tabular for \\input; needs the package booktabs alone."""
    escapes = {"\\": r"\textbackslash{}", "±": r"$\pm$", MINUS: "$-$", "<": "$<$", **{sign: f"\\{sign}" for sign in "%&#_$"}}
    table = str.maketrans(escapes)
    rows = [" & ".join(cell.translate(table) for cell in line) + r" \\" for line in (text.header, *text.lines)]
    columns = "l" + "r" * (len(text.header) - 1)
    body = [rows[0], r"\midrule", *rows[1:]]
    return "\n".join([rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def html_table(text: Text) -> str:
    """An HTML table that scrolls sideways on a narrow screen."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in text.header)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in text.lines]
    body = "\n".join(f'<tr class="{_kind(cells[0])}">{line}</tr>' for line, cells in zip(lines, text.lines, strict=True))
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _kind(label: str) -> str:
    return "more" if label in ("difference", "p", PAPER) else "own"


def draw_rows(frame: pd.DataFrame, cells: Cells) -> Figure:
    """A panel a measure: the rows from left to right, each seed a grey dot, mean and standard deviation in blue."""
    figure, axes = plt.subplots(2, 2, figsize=(6.6, 5.2), layout="constrained")
    labels = frame.drop_duplicates("row").set_index("row")["label"]
    for axis, measure in zip(axes.flat, MEASURES, strict=True):
        for place, row in enumerate(labels.index):
            _dots(axis, place, values_of(cells, row, measure))
        axis.set(title=f"{measure}, %", xticks=range(len(labels)), xlim=(-0.5, len(labels) - 0.5))
        axis.set_xticklabels(labels, fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    return figure


def draw_sweeps(frame: pd.DataFrame, ablation: Ablation, cells: Cells) -> Figure:
    """A column a weight, a panel a measure below the other: the values on the axis, seeds, means and deviations as in `draw_rows`."""
    keys = list(frame["parameter"].unique())
    figure, axes = plt.subplots(
        len(MEASURES), len(keys), figsize=(3.3 * len(keys), 8.0), squeeze=False, sharex="col", layout="constrained"
    )
    for column, key in zip(axes.T, keys, strict=True):
        for axis, measure in zip(column, MEASURES, strict=True):
            lines = frame[(frame["parameter"] == key) & (frame["measure"] == measure)]
            axis.plot(lines["value"], lines["mean"], color=BLUE, linewidth=1.2)
            for row, value in zip(lines["row"], lines["value"], strict=True):
                _dots(axis, value, values_of(cells, row, measure, ablation.sweep_seeds))
            axis.set(title=f"{measure}, %", xticks=lines["value"])
            axis.title.set_fontsize(9)
            axis.grid(alpha=0.3)
        column[-1].set_xlabel(SYMBOLS.get(key, key))
    return figure


def _dots(axis: plt.Axes, place: float, values: Values) -> None:
    if not values:
        return
    axis.plot([place] * len(values), list(values.values()), ".", color=GREY, alpha=0.6, markersize=6)
    axis.errorbar([place], [np.mean(list(values.values()))], yerr=deviation(values), fmt="o", color=BLUE, capsize=4, markersize=5)


def save_figure(figure: Figure, stem: Path) -> None:
    """Write <stem>.svg and <stem>.png, the same bytes for the same content, and close the figure."""
    with matplotlib.rc_context({"svg.hashsalt": "hpl"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    save_png(figure, stem.with_suffix(".png"))


def write_ablation(folder: Path, cells_folder: Path, ablation: Ablation, loss: Loss, profile: str) -> None:
    """Write README.md, index.html, and each table and figure as CSV, LaTeX, PNG and SVG into `folder`, which is replaced.

    Args:
        cells_folder: holds <row>-<seed>.json.
        loss: the default weights, which say where the row hpl_cmpr stands in a sweep.
    """
    cells, missing = read_cells(cells_folder, ablation)
    if not cells:
        raise HplError(f"{cells_folder}: none of the {len(ablation.cells)} cells of params.yaml is there; run `make ablation`")
    tables = dict(TABLES)
    if further := further_rows(ablation):
        tables["further"] = further
    with output_folder(folder) as out:
        blocks: list[tuple] = [
            ("title", "Ablation"),
            *(("text", line) for line in _introduction(ablation, cells, missing, profile)),
        ]
        for name, table in tables.items():
            frame = table_frame(table, cells)
            text = table_text(frame, cells, table)
            blocks += [("heading", table.title), ("text", table.note), ("table", text)]
            blocks.append(_write(out, name, frame, text, draw_rows(frame, cells), f"{table.title}. {_spoken(frame)}"))
        sweep = sweep_frame(ablation, loss, cells)
        if len(sweep):
            text, title = sweep_text(sweep), "Figure 3: the weights of two losses, one at a time"
            note = f"With {len(ablation.sweep_seeds)} seed{'s' * (len(ablation.sweep_seeds) > 1)}: {_list(ablation.sweep_seeds)}."
            if len(ablation.sweep_seeds) == 1:
                note += (
                    " One seed says nothing of the spread: what lies within the deviations of the tables above is not a finding."
                )
            blocks += [("heading", title), ("text", note), ("table", text)]
            alt = f"{title}: T2I and I2I figures against each weight; the numbers are in the table."
            blocks.append(_write(out, "figure3", sweep, text, draw_sweeps(sweep, ablation, cells), alt))
        blocks += [("heading", "What each row changes"), ("table", _rows_text(ablation))]
        write_text(out / "README.md", _markdown_page(blocks))
        write_text(out / "index.html", _html_page(blocks, out))


def _write(out: Path, name: str, frame: pd.DataFrame, text: Text, figure: Figure, alt: str) -> tuple:
    write_text(out / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
    write_text(out / f"{name}.tex", latex(text))
    save_figure(figure, out / name)
    return ("figure", name, alt)


def _introduction(ablation: Ablation, cells: Cells, missing: list[str], profile: str) -> list[str]:
    lines = [
        f"Profile {profile}; {len(cells)} of {len(ablation.cells)} cells; seeds {_list(ablation.seeds)}, of sweeps "
        f"{_list(ablation.sweep_seeds)}. Figures are of the test split, as the evaluate stage measures them.",
        "Each row: mean ± sample standard deviation over seeds, in percent; in the figures grey dots are single seeds. A difference is over pairs of the same seed: mean, 95 % interval "
        "and p of a paired t test, not corrected for the number of tests; the second column then counts pairs. It speaks of the spread between seeds of all that follows one common backbone; "
        "the people of the test split, and the backbone, are the same in all cells.",
        "* The paper's figures are for CUHK-PEDES + Market-1501 and stand beside ours for the direction of a change alone.",
    ]
    if profile == "bundled":
        lines.insert(1, "The bundled data set is synthetic: these figures say nothing about real cameras.")
    if missing:
        lines.append(f"Missing, and left out of every number: {'; '.join(missing)}.")
    return lines


def _list(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))


def _spoken(frame: pd.DataFrame) -> str:
    """Means of a table as a sentence, for who cannot see the figure."""
    shown = frame[frame["num_seeds"] > 0]
    parts = [
        f"{label}: " + ", ".join(f"{line.measure} {line.mean:.1f}" for line in group.itertuples())
        for label, group in shown.groupby("label", sort=False)
    ]
    return "Means in percent. " + "; ".join(parts) + "."


def _rows_text(ablation: Ablation) -> Text:
    return Text(["row", "changes"], [[row, _changes(changes)] for row, changes in ablation.changes.items()], "---|")


def _changes(changes: Row) -> str:
    return ", ".join(f"{key}: {_value(value)}" for key, value in changes.items()) or "nothing: the parameters as they are"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def _markdown_page(blocks: list[tuple]) -> str:
    render = {
        "title": lambda text: f"# {text}",
        "heading": lambda text: f"## {text}",
        "text": lambda text: text.replace("* The", "\\* The"),
        "table": lambda text: markdown(text).replace(PAPER, PAPER.replace("*", "\\*")),
        "figure": lambda name, alt: f"![{alt}]({name}.png)\n\n[CSV]({name}.csv), [LaTeX]({name}.tex), [SVG]({name}.svg)",
    }
    return "\n\n".join(render[kind](*content) for kind, *content in blocks) + "\n"


STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; color: #222; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap } th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff }
thead th { border-bottom: 2px solid #444 } tr.own td { border-top: 1px solid #ccc } tr.more td { color: #555; font-size: .85rem }
tr.more td:first-child { padding-left: 1.6rem } img { max-width: 100%; height: auto; margin-top: 1rem }"""


def _html_page(blocks: list[tuple], out: Path) -> str:
    """One file that needs no other: figures are SVG inside."""

    def image(name: str, alt: str) -> str:
        content = base64.b64encode((out / f"{name}.svg").read_bytes()).decode()
        return f'<img src="data:image/svg+xml;base64,{content}" alt="{html.escape(alt)}">'

    render = {
        "title": lambda text: f"<h1>{html.escape(text)}</h1>",
        "heading": lambda text: f"<h2>{html.escape(text)}</h2>",
        "text": lambda text: f"<p>{html.escape(text)}</p>",
        "table": html_table,
        "figure": image,
    }
    body = "\n".join(render[kind](*content) for kind, *content in blocks)
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Ablation</title>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n'
