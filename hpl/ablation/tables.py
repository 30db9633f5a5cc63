"""The numbers of the paper's tables 3 and 4 and figures 1a and 3 from the ablation's cells, each row with all its seeds.

Every number is a mean over seeds with its sample standard deviation. A difference is paired: both rows have the same seeds, and what is
tested is the mean of the differences (Student's t). No seed is chosen, and a cell that is not there is listed, not guessed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from scipy import stats

from hpl.config import Ablation, Loss, Row
from hpl.files import HplError, read_json

MEASURES = {"T2I R1": ("t2i", "rank1"), "T2I mAP": ("t2i", "mAP"), "I2I R1": ("i2i", "rank1"), "I2I mAP": ("i2i", "mAP")}
FULL = "hpl_cmpr"  # the row that changes nothing
Values = dict[int, float]  # seed -> percent
Cells = dict[tuple[str, int], dict]  # (row, seed) -> the cell's JSON


@dataclass(frozen=True)
class Comparison:
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
    "table3": Comparison(
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
    "table4": Comparison(
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
    "figure1a": Comparison(
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


def read_cells(folder: Path, ablation: Ablation, others: Iterable[str] = ()) -> tuple[Cells, list[str]]:
    """The cells that params.yaml lists, and a line for each row of which some are not there, or cell that was made with other parameters.

    Args:
        others: cells of other common parameters, as `cells_of_other_parameters` names them.

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
        if cell["changes"] != ablation.changes[row]:
            older.append(f"{row}, seed {seed} (there is one of older changes: {show_changes(cell['changes'])})")
        elif f"{row}-{seed}" in others:
            older.append(f"{row}, seed {seed} (there is one of other parameters)")
        else:
            cells[row, seed] = cell
    return cells, [f"{row}, seed{'s' * (len(seeds) > 1)} {listed(seeds)}" for row, seeds in absent.items()] + older


def cells_of_other_parameters(lock: Path, params: Path) -> set[str]:
    """<row>-<seed> of the cells that DVC ran with other parameters, or another profile, than params.yaml has now.

    Args:
        lock: the ablation's dvc.lock; without it none is known to differ.
        params: params.yaml.
    """
    if not Path(lock).is_file():
        return set()
    yaml = YAML(typ="safe", pure=True)
    stages, now = yaml.load(Path(lock)).get("stages", {}), yaml.load(Path(params))
    others = set()
    for name, stage in stages.items():
        values = {key: value for file in stage.get("params", {}).values() for key, value in file.items()}
        profiles = {key.split(".")[1] for key in values if key.startswith("profiles.")}
        if "@" in name and (profiles - {now["profile"]} or any(_at(now, key) != value for key, value in values.items())):
            others.add(name.partition("@")[2])
    return others


def _at(content: dict, key: str) -> object:
    """The value of a dotted key; None if there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def values_of(cells: Cells, row: str, measure: str, seeds: Iterable[int] | None = None) -> Values:
    """What the cells of a row have of a measure, by seed; of some seeds alone, if given."""
    task, name = MEASURES[measure]
    chosen = None if seeds is None else set(seeds)
    return {
        seed: cell["metrics"][task][name]
        for (own, seed), cell in sorted(cells.items())
        if own == row and task in cell["metrics"] and (chosen is None or seed in chosen)
    }


def table_frame(table: Comparison, cells: Cells) -> pd.DataFrame:
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


def further_rows(ablation: Ablation) -> Comparison | None:
    """The rows of params.yaml that belong to no table or sweep above, compared with the default; None if there are none."""
    known = {row for table in TABLES.values() for row in table.labels}
    swept = {row for row, changes in ablation.sweeps.items() if len(changes) == 1 and next(iter(changes)) in _swept(ablation)}
    rows = [row for row in ablation.changes if row not in known | swept]
    if not rows:
        return None
    labels = {FULL: FULL, **{row: row for row in rows}}
    return Comparison(
        "Further rows", labels, _star(labels, FULL), f"Rows of params.yaml beyond the paper's. Differences are to {FULL}."
    )


def show_changes(changes: Row) -> str:
    """What a row changes, in words."""
    return ", ".join(f"{key}: {_value(value)}" for key, value in changes.items()) or "nothing: the parameters as they are"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def listed(seeds: list[int]) -> str:
    """Seeds in words."""
    return ", ".join(map(str, seeds))
