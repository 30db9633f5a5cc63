"""Render reports/README.md, its pictures, and reports/index.html, which holds them and more."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import run_stage
from hpl.reports.page import write_report

EPOCHS = {
    "last": "the last epoch is evaluated, none was chosen",
    "best": "the epoch of the highest mAP on the validation split is evaluated",
}


def main() -> None:
    manifests, evaluation, curves, metrics, baselines, reports = map(Path, sys.argv[1:])
    params = load_params()
    profile = params.active
    settings = {
        "Profile": params.profile
        + (" (the synthetic data set: these figures say nothing about real cameras)" if params.profile == "bundled" else ""),
        "Trained on": " + ".join(source.label for source in profile.data.datasets if "train" in source.use),
        "Evaluated on": " + ".join(source.label for source in profile.data.datasets if "test" in source.use),
        "Tasks trained": f"{', '.join(params.tasks)}; seed {params.seed}; {EPOCHS[profile.train.selection]}",
    }
    titles = {"pretraining": "pretrain.csv", "stage I, prompts": "construct_prompts.csv", "stage II, training": "train.csv"}
    files = {title: curves / name for title, name in titles.items()}
    write_report(reports, manifests, evaluation, files, metrics, baselines, settings, params.seed)


if __name__ == "__main__":
    run_stage(main)
