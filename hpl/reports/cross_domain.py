"""The cross-domain matrix of several runs, as Markdown: `python -m hpl.reports.cross_domain cuhk icfg rstp`.

A run is a DVC experiment, branch or commit: what it was trained on, and how, stands in its parameters, what it was tested on in
its metrics. Runs that differ in nothing but their seed make one row.
"""

import sys
from pathlib import Path

import dvc.api
import numpy as np
from dvc.exceptions import DvcException
from dvc.scm import RevError

from hpl.files import HplError, run_stage
from hpl.reports.content import MAIN_FIGURES, Table, markdown, settings_words, with_interval
from hpl.reports.pull_request import METRICS, PARAMS, flat
from hpl.reports.results import not_scored
from hpl.runtime.provenance import ask_git
from hpl.tasks import TASKS

_METHOD = ("tasks", "model", "prompt", "loss")  # with the profile, but for its data, what makes two runs the same method


def cross_domain(revisions: list[str]) -> str:
    """Render a table a task: rows are what was trained on, columns what was tested on. Call it in the project's root.

    Raises:
        HplError: git refuses, DVC knows no such revision, or it holds no figures of an evaluation.
    """
    status, _, reason = ask_git(Path("."), "rev-parse", "--git-dir")  # DVC would say that a ref failed, or end in a traceback
    if status:
        raise HplError(f"git: {reason}")
    rows: list[dict] = []
    for revision in revisions:
        run = _read(revision)
        row = next((row for row in rows if all(row[key] == run[key] for key in ("trained", "settings", "method"))), None)
        if row is None:
            rows.append(run)
        elif run["runs"][0] not in row["runs"]:  # a run that is named twice counts once
            row["runs"] += run["runs"]
            row["missing"] += run["missing"]
    parts = []
    for task in TASKS.values():
        names = list(dict.fromkeys(name for row in rows for run in row["runs"] for name, own in run if own == task.name))
        if names:
            lines = [[_label(row, rows), str(len(row["runs"])), *(_cell(row, name, task.name) for name in names)] for row in rows]
            caption = f"{task.title}: R1 / mAP, percent, by what was tested"
            parts.append(markdown(Table(["trained on", "runs", *names], lines, caption)))
    parts += [
        f"Not scored: `{name}`: {reason}." for name, reason in {key: why for row in rows for key, why in row["missing"]}.items()
    ]
    notes = (
        "\u2020 The model was trained on this set too. One run: in brackets 95 % of bootstrap samples of the test people. "
        "Several: mean \u00b1 sample standard deviation over runs that differ in their seed alone."
    )
    return "\n\n".join([*parts, notes]) + "\n"


def _read(revision: str) -> dict:
    """Read a run: names of its training sets, words for its settings, its method (flat), and its figures by set and task."""
    try:
        metrics = dvc.api.metrics_show(METRICS, rev=revision)
        params = dvc.api.params_show(PARAMS, rev=revision)
    except (DvcException, RevError, OSError, ValueError) as error:
        raise HplError(f"{revision}: {error}; expected a commit, branch or experiment (`dvc exp show`) with {METRICS}") from None
    if not metrics.get("datasets"):
        raise HplError(f"{revision}: its {METRICS} does not say which sets were tested; run its evaluate stage again")
    figures = {(name, task): metrics[task] for task, name in metrics["datasets"].items()}
    figures |= {(name, task): values for name, tasks in metrics.get("others", {}).items() for task, values in tasks.items()}
    try:
        profile = params["profiles"][params["profile"]]
        sets = profile["data"]["datasets"]
        trained = [each.get("name") or Path(each["folder"]).name for each in sets if "train" in each["use"]]
    except (KeyError, TypeError, AttributeError):
        raise HplError(f"{revision}: its {PARAMS} has no profile with data.datasets; expected one of this project") from None
    method = {key: params[key] for key in _METHOD if key in params} | {key: profile[key] for key in profile if key != "data"}
    settings, missing = settings_words(metrics.get("settings", {})), list(not_scored(metrics).items())
    return {"trained": trained, "settings": settings, "method": flat(method), "runs": [figures], "missing": missing}


def _label(row: dict, rows: list[dict]) -> str:
    """Say what was trained on, and how if that is not as in the first row of the same sets."""
    first = next(other for other in rows if other["trained"] == row["trained"])["method"]
    keys = sorted(key for key in first.keys() | row["method"].keys() if first.get(key) != row["method"].get(key))
    changed = "".join(f", {key}: {row['method'].get(key, '-')}" for key in keys)
    return " + ".join(row["trained"]) + row["settings"] + changed


def _cell(row: dict, name: str, task: str) -> str:
    found = [run[name, task] for run in row["runs"] if (name, task) in run]
    if not found:
        return "-"
    if len(found) == 1:
        shown = [with_interval(found[0], figure) for figure in MAIN_FIGURES]
    else:
        values = [[each[figure] for each in found] for figure in MAIN_FIGURES]
        shown = [f"{np.mean(each):.2f} \u00b1 {np.std(each, ddof=1):.2f}" for each in values]
    return " / ".join(shown) + " \u2020" * (name in row["trained"])


def _main() -> None:
    if len(sys.argv) < 2:
        raise HplError("expected runs, such as names of experiments: python -m hpl.reports.cross_domain cuhk icfg rstp")
    print(cross_domain(sys.argv[1:]), end="")


if __name__ == "__main__":
    run_stage(_main)
