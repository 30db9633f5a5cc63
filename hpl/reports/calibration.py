"""What a score says, in the report: reliability, false alarms, and clusters of people, on the test split."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from hpl.reports.content import Definitions, Figure, Section, Table
from hpl.reports.figures import GREY, PALETTE, PANEL, save_png
from hpl.tasks import TASKS, Task

_Block = str | Table | Figure | Definitions
_SMALLEST = 9  # area of a dot


def draw_reliability(title: str, table: pd.DataFrame, prior: float, path: Path) -> None:
    """Draw observed against expected share of one person in each bin of probability, with intervals; the diagonal is perfect.

    Args:
        table: of one task, as hpl.analysis.reliability returns it.
    """
    figure, axis = plt.subplots(figsize=(PANEL[0], PANEL[0]), layout="constrained")
    known = table[table["expected"].notna()]
    share, observed = 100 * known["expected"].to_numpy(), 100 * known["observed"].to_numpy()
    ends = 100 * known[["observed_ci_low", "observed_ci_high"]].to_numpy().T
    spread = np.maximum(np.stack([observed - ends[0], ends[1] - observed]), 0)
    pairs = (known["num_same"] + known["num_others"]).to_numpy()
    axis.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1.2, label="as said")
    axis.errorbar(share, observed, spread, fmt="none", ecolor=PALETTE[0], elinewidth=1.3, capsize=2.5)
    sizes = _SMALLEST * (1 + np.log10(pairs))
    axis.scatter(share, observed, s=sizes, color=PALETTE[0], zorder=3, label="pairs of a bin")
    for x, y, count in zip(share, observed, pairs):
        axis.annotate(f"{count:,}", (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7, color=GREY)
    axis.set(title=title, xlim=(-2, 102), ylim=(-2, 102), xlabel="probability of one person, %")
    axis.set_ylabel(f"pairs of one person, % (at a prior of {100 * prior:g} %)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="upper left", frameon=False)
    save_png(figure, path)


def calibration_sections(metrics: dict, table: pd.DataFrame, figures: Path) -> list[Section]:
    """Show whether probabilities and thresholds hold, and what clusters find; nothing of a model that says nothing of either."""
    sections, found = [], metrics.get("calibration", {})
    if found:
        tasks, blocks = [task for task in TASKS.values() if task.name in found], list[_Block]()
        if tasks:
            blocks += [_WHAT, _reliability(found, tasks, table, figures), _errors(found, tasks), _alarms(found, tasks)]
        blocks += _left_out(found, tasks)
        sections.append(Section("What a score says", blocks, short=True))
    if clusters := metrics.get("clusters"):
        sections.append(_clusters(clusters))
    return sections


_WHAT = (
    "The `calibrate` stage fits on validation people, and keeps with the model, the probability that a score means one person, "
    "and thresholds; here they are held to the test people. A probability is of one comparison at the stated prior, the share of "
    "pictures of the person sought; pairs are weighted to it."
)
_FIGURE = "Numbers are pairs in the bin; bars are 95 % of bootstrap samples of the people who ask."


def _reliability(found: dict, tasks: list[Task], table: pd.DataFrame, figures: Path) -> Figure:
    pictures = []
    for task in tasks:
        path = figures / f"reliability_{task.name}.png"
        draw_reliability(f"{task.short}, test split", table[table["task"] == task.name], found[task.name]["prior"], path)
        pictures.append((path, f"Reliability diagram, {task.short}: observed share of one person by probability"))
    return Figure(pictures, _FIGURE)


def _left_out(found: dict, tasks: list[Task]) -> list[_Block]:
    """Say what is not calibrated or not promised, and why."""
    reasons = {f"Not calibrated, {_name(name)}": reason for name, reason in found.get("missing", {}).items()}
    for task in tasks:
        for rate, reason in found[task.name].get("not_promised", {}).items():
            reasons[f"No threshold, {task.short}, {rate.replace('_', ' ')}"] = reason
    return [Definitions(reasons)] if reasons else []


def _name(missing: str) -> str:
    return TASKS[missing].short if missing in TASKS else missing


def _errors(found: dict, tasks: list[Task]) -> Table:
    rows = []
    for task in tasks:
        own = found[task.name]
        shown = [
            f"{100 * own[name]:.2f} ({100 * own[f'{name}_ci_low']:.2f}-{100 * own[f'{name}_ci_high']:.2f})"
            for name in ("ece", "ece_shown")
        ]
        rows.append([task.short, *shown, f"{own['log_loss']:.4f}", f"{own['num_same']:,}", f"{own['num_others']:,}"])
    header = ["task", "ECE, percent", "ECE from 10 % up", "log loss", "pairs of one person", "of two"]
    return Table(header, rows, "Expected calibration error: the mean distance of the dots from the diagonal, by pair.")


def _alarms(found: dict, tasks: list[Task]) -> Table:
    rows = [
        [
            task.short,
            f"{100 * each['promised']:g}",
            f"{100 * each['reached']:.3g} ({100 * each['reached_ci_low']:.3g}-{100 * each['reached_ci_high']:.3g})",
            f"{each['num_alarms']:,}",
            f"{each['found']:.1f}",
        ]
        for task in tasks
        for each in sorted(found[task.name]["false_alarms"].values(), key=lambda each: -each["promised"])
    ]
    header = ["task", "false alarms promised, percent", "reached", "alarms", "pairs of one person found, percent"]
    caption = "False alarms: of all comparisons with other people, those at or above the threshold."
    return Table(header, rows, caption)


def _clusters(figures: dict) -> Section:
    text = (
        f"{figures['num_pictures']:,} test pictures of known people, clustered as if nobody knew them: average linkage of v_i2i, "
        f"joined from a mean cosine of {figures['threshold']:.4f}, the threshold of the highest ARI on validation people. "
        "ARI (adjusted Rand index): agreement on pairs, 0 by chance, 1 perfect; homogeneity: 1 if no cluster mixes "
        "people; completeness: 1 if no person is in two clusters."
    )
    row = ["test split"] + [f"{figures[name]:.3f}" for name in ("ari", "homogeneity", "completeness")]
    row += [f"{figures[name]:,}" for name in ("num_true", "num_found", "num_alone")]
    header = ["", "ARI", "homogeneity", "completeness", "people", "clusters found", "of one picture"]
    return Section("Who is who, without labels", [text, Table(header, [row])], short=True)
