"""Render reports/README.md, its pictures, and reports/index.html, which holds them and more."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import run_stage
from hpl.reports.page import write_report

EPOCHS = {
    "last": "the last epoch is evaluated",
    "best": "the epoch of the highest mAP on the validation split is evaluated",
}


def main() -> None:
    manifests, evaluation, curves, metrics, baselines, reports = map(Path, sys.argv[1:])
    params = load_params()
    profile = params.active
    rendered = " (rendered, in the layouts of these sets)" if params.profile == "bundled" else ""
    stop = f"; training may stop by validation (patience {profile.train.patience})" if profile.train.patience else ""
    settings = {
        "Profile": params.profile
        + (" (the synthetic data set: these figures say nothing about real cameras)" if params.profile == "bundled" else ""),
        "Trained on": " + ".join(source.label for source in profile.data.datasets if "train" in source.use) + rendered,
        "Evaluated on": " + ".join(source.label for source in profile.data.datasets if "test" in source.use) + rendered,
        "Tasks trained": f"{', '.join(params.tasks)}; seed {params.seed}; {EPOCHS[profile.train.selection]}{stop}",
    }
    titles = {"pretraining": "pretrain.csv", "stage I, prompts": "construct_prompts.csv", "stage II, training": "train.csv"}
    files = {title: curves / name for title, name in titles.items()}
    write_report(reports, manifests, evaluation, files, metrics, baselines, settings, params.seed)


if __name__ == "__main__":
    run_stage(main)
