"""The cross-domain matrix of several runs, as Markdown: `python -m hpl.reports.cross_domain cuhk icfg rstp`.

A run is a DVC experiment, branch or commit: what it was trained on stands in its params.yaml, what it was tested on in its
reports/metrics.json. Runs of the same training sets, such as other seeds, make one row.
"""

import sys

import dvc.api
import numpy as np
from dvc.exceptions import DvcException
from dvc.scm import RevError

from hpl.config import Data
from hpl.files import HplError, run_stage
from hpl.reports.content import Table, markdown

METRICS, PARAMS = "reports/metrics.json", "params.yaml"
TASKS = {"t2i": "Text to image", "i2i": "Image to image"}


def cross_domain(revisions: list[str]) -> str:
    """A table a task: rows are what was trained on, columns what was tested on. Call it in the project's root.

    Raises:
        HplError: DVC knows no such revision, or it holds no figures of an evaluation.
    """
    runs: dict[str, list[dict]] = {}
    within: dict[str, list[str]] = {}
    for revision in revisions:
        trained, figures = _read(revision)
        label = " + ".join(trained)
        within[label] = trained
        runs.setdefault(label, []).append(figures)
    parts = []
    for task, title in TASKS.items():
        sets = list(dict.fromkeys(name for each in runs.values() for figures in each for name, own in figures if own == task))
        if sets:
            rows = [
                [
                    label,
                    str(len(each)),
                    *(_cell([figures.get((name, task)) for figures in each], name in within[label]) for name in sets),
                ]
                for label, each in runs.items()
            ]
            parts.append(markdown(Table(["trained on", "runs", *sets], rows, f"{title}: R1 / mAP, percent, by what was tested")))
    return (
        "\n\n".join([*parts, "† The model was trained on this set too. With several runs: mean ± sample standard deviation."])
        + "\n"
    )


def _read(revision: str) -> tuple[list[str], dict[tuple[str, str], dict]]:
    """Names of the training sets, and the figures by set and task."""
    try:
        metrics = dvc.api.metrics_show(METRICS, rev=revision)
        params = dvc.api.params_show(PARAMS, rev=revision)
    except (DvcException, RevError) as error:
        raise HplError(f"{revision}: {error}; expected a commit, a branch or an experiment (`dvc exp show`)") from None
    if not metrics.get("datasets"):
        raise HplError(f"{revision}: its {METRICS} does not say which sets were tested; run its evaluate stage again")
    figures = {(name, task): metrics[task] for task, name in metrics["datasets"].items()}
    figures |= {(name, task): values for name, tasks in metrics.get("others", {}).items() for task, values in tasks.items()}
    sources = Data.model_validate(params["profiles"][params["profile"]]["data"]).datasets
    return [source.label for source in sources if "train" in source.use], figures


def _cell(figures: list[dict | None], trained: bool) -> str:
    found = [each for each in figures if each]
    if not found:
        return "-"
    shown = []
    for name in ("rank1", "mAP"):
        values = [each[name] for each in found]
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        shown.append(f"{np.mean(values):.2f}{spread}")
    return " / ".join(shown) + " †" * trained


def _main() -> None:
    if len(sys.argv) < 2:
        raise HplError("expected runs, such as names of experiments: python -m hpl.reports.cross_domain cuhk icfg rstp")
    print(cross_domain(sys.argv[1:]), end="")


if __name__ == "__main__":
    run_stage(_main)
