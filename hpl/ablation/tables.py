"""The numbers of the paper's tables 3 and 4 and figures 1a and 3 from the ablation's cells, each row with all its seeds.

Every number is a mean over seeds with its sample standard deviation. A difference is paired: both rows have the same seeds, and
what is tested is the mean of the differences (Student's t). No seed is chosen; a cell that is not there is listed, not guessed.
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
from hpl.reports.content import FIGURE_LABELS, MAIN_FIGURES
from hpl.tasks import TASKS

MEASURES = {f"{task.short} {FIGURE_LABELS[name]}": (task.name, name) for task in TASKS.values() for name in MAIN_FIGURES}
FULL = "hpl_cmpr"  # the row that changes nothing
Values = dict[int, float]  # seed -> percent
Cells = dict[tuple[str, int], dict]  # (row, seed) -> the cell's JSON


@dataclass(frozen=True)
class Comparison:
    """Rows that stand together, each but the first compared with the row above it, or with `centre`."""

    title: str
    labels: dict[str, str]  # row -> what it is called here
    note: str
    centre: str | None = None
    paper: dict[str, dict[str, float]] = field(default_factory=dict)  # row -> measure -> percent

    @property
    def reference(self) -> dict[str, str | None]:
        """Row -> the row that it is compared with, None for the one that stands first."""
        above = [None, *self.labels]
        return {row: (self.centre or above[place]) if row != self.centre else None for place, row in enumerate(self.labels)}


def _paper(measures: Iterable[str], **rows: tuple[float, ...]) -> dict[str, dict[str, float]]:
    return {row: dict(zip(measures, numbers, strict=True)) for row, numbers in rows.items()}


COMPARISONS = {
    "table3": Comparison(
        "Table 3: the parts of the method, one after the other",
        {"baseline": "baseline", "trt": "+ TRT", "hpl": "+ HPL", FULL: "+ CMPR"},
        "TRT: the second class token. HPL: prompts without the cross-modal regularisation. CMPR: that regularisation. "
        "Differences are to the row above.",
        paper=_paper(
            MEASURES,
            baseline=(74.22, 70.45, 94.50, 86.91),
            trt=(75.27, 70.80, 95.36, 88.98),
            hpl=(75.60, 70.88, 95.57, 89.72),
            hpl_cmpr=(76.28, 70.89, 95.99, 89.82),
        ),
    ),
    "table4": Comparison(
        "Table 4: the two halves of the instance alignment",
        {"trt": "none", "text_guided": "text-guided", "vision_guided": "vision-guided", "hpl": "both"},
        "All without CMPR. The row none has no prompts at all, so it also lacks the identity prompts that the other three have. "
        "Differences are to the row none.",
        centre="trt",
        paper=_paper(
            ["T2I R1", "I2I mAP"],
            trt=(75.27, 88.98),
            text_guided=(75.58, 89.35),
            vision_guided=(75.60, 89.59),
            hpl=(75.60, 89.72),
        ),
    ),
    "figure1a": Comparison(
        "Figure 1a: the baseline trained for both tasks or for one alone, and the whole method for both",
        {"baseline": "both tasks", "t2i_only": "T2I alone", "i2i_only": "I2I alone", FULL: "the whole method"},
        "The first three rows have one class token and no prompts. T2I alone is not trained to match pictures, I2I alone is not "
        "trained on captions: their figures of the other task are what that training leaves of it. All rows take the same number "
        "of steps. Differences are to the row both tasks.",
        centre="baseline",
    ),
}


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences in points of percent; with two pairs or more the 95 % interval, and `p` where they vary."""

    mean: float
    num_pairs: int
    low: float | None = None
    high: float | None = None
    p: float | None = None


def paired_difference(values: Values, reference: Values) -> Difference | None:
    """Subtract `reference` from `values` over the seeds that both have: Student's t for pairs, two-sided. None without such.

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
    """Compute the sample standard deviation over seeds; None for fewer than two."""
    return float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else None


def read_cells(folder: Path, ablation: Ablation, others: Iterable[str] = ()) -> tuple[Cells, list[str]]:
    """Read the cells that params.yaml lists, and say of which rows some are not there, or were made with other parameters.

    Args:
        others: cells of other common parameters, as `cells_of_other_parameters` names them.

    Raises:
        HplError: a file is not a cell.
    """
    cells, absent, older = {}, dict[str, list[int]](), []
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
    """Name (<row>-<seed>) the cells that DVC ran with other parameters, or another profile, than params.yaml has now.

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


def _at(content: object, key: str) -> object:
    """Find the value of a dotted key; None if there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def values_of(cells: Cells, row: str | None, measure: str, seeds: Iterable[int] | None = None) -> Values:
    """Collect what the cells of a row have of a measure, by seed; of some seeds alone, if given."""
    task, name = MEASURES[measure]
    chosen = None if seeds is None else set(seeds)
    return {
        seed: cell["metrics"][task][name]
        for (own, seed), cell in sorted(cells.items())
        if own == row and task in cell["metrics"] and (chosen is None or seed in chosen)
    }


def table_frame(table: Comparison, cells: Cells) -> pd.DataFrame:
    """Tabulate the numbers of each row and measure: what the CSV holds."""
    lines = []
    for row, reference in table.reference.items():
        for measure in MEASURES:
            numbers = _numbers(measure, values_of(cells, row, measure), reference, values_of(cells, reference, measure))
            paper = table.paper.get(row, {}).get(measure)
            lines.append({"row": row, "label": table.labels[row], **numbers, "paper": paper})
    return pd.DataFrame(lines)


def sweep_frame(ablation: Ablation, loss: Loss, cells: Cells) -> pd.DataFrame:
    """Tabulate the numbers of each value of a swept weight and measure; the default's are of hpl_cmpr, with the sweep's seeds."""
    lines = []
    for key in _swept(ablation):
        points = {row: changes[key] for row, changes in ablation.sweeps.items() if list(changes) == [key]}
        points[FULL] = getattr(loss, key.removeprefix("loss."))
        for row, value in sorted(points.items(), key=lambda point: point[1]):
            reference = None if row == FULL else FULL
            for measure in MEASURES:
                own, other = (values_of(cells, name, measure, ablation.sweep_seeds) for name in (row, reference))
                lines.append({"parameter": key, "value": value, "row": row, **_numbers(measure, own, reference, other)})
    return pd.DataFrame(lines)


def _swept(ablation: Ablation) -> list[str]:
    """List the weights that sweeps change one at a time."""
    keys = [next(iter(row)) for row in ablation.sweeps.values() if len(row) == 1]
    return [key for key in dict.fromkeys(keys) if key.startswith("loss.")]


def _numbers(measure: str, own: Values, reference: str | None, other: Values) -> dict:
    """Describe a row's values, and how they differ from those of its reference."""
    found = paired_difference(own, other) or Difference(np.nan, 0)
    mean = float(np.mean(list(own.values()))) if own else None
    numbers = {"measure": measure, "num_seeds": len(own), "mean": mean, "sd": deviation(own), "reference": reference}
    interval = {"difference_ci_low": found.low, "difference_ci_high": found.high, "difference_p": found.p}
    return {**numbers, "difference": found.mean, "difference_pairs": found.num_pairs, **interval}


def further_rows(ablation: Ablation) -> Comparison | None:
    """Compare the rows of params.yaml that belong to no table or sweep above with the default; None if there are none."""
    known = {row for table in COMPARISONS.values() for row in table.labels}
    swept = {row for row, changes in ablation.sweeps.items() if len(changes) == 1 and next(iter(changes)) in _swept(ablation)}
    rows = [row for row in ablation.changes if row not in known | swept]
    if not rows:
        return None
    labels = {FULL: FULL, **{row: row for row in rows}}
    note = f"Rows of params.yaml beyond the paper's. Differences are to {FULL}."
    return Comparison("Further rows", labels, note, centre=FULL)


def show_changes(changes: Row) -> str:
    """Say what a row changes."""
    return ", ".join(f"{key}: {_value(value)}" for key, value in changes.items()) or "nothing: the parameters as they are"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def listed(seeds: list[int]) -> str:
    """Write seeds one after the other."""
    return ", ".join(map(str, seeds))
