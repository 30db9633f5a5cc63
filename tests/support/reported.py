"""What the stages before a report may leave, and the reports of it."""

from pathlib import Path

import numpy as np

from hpl.config import Ablation, load_params
from hpl.files import write_json
from hpl.reports.page import Sources, write_report
from tests.support.imports import ROOT

HOSTILE = (
    "<script>alert('x')</script> [a](javascript:alert(1)) & a \"red\" | $coat$ `x` \u7684 <img src=http://example.org/a.png>"
)


def figures(value: float) -> dict[str, float]:
    return {name: value for name in ("rank1", "rank5", "rank10", "mAP", "mINP")} | {"num_queries": 24, "num_skipped": 0}


def measured() -> dict:
    """What metrics.json may hold."""
    interval = {"rank1_ci_low": 44.44, "rank1_ci_high": 55.55, "mAP_ci_low": 43.0, "mAP_ci_high": 57.0}
    composed = {"rank1": 61.5, "mAP": 40.25} | interval
    gain = {"rank1": -0.5, "rank1_ci_low": -1.5, "rank1_ci_high": 0.04, "mAP": 2.0, "mAP_ci_low": 1.0, "mAP_ci_high": 3.0}
    return {
        "t2i": figures(50.0) | interval | {"rsum": 150.0, "rsum_ci_low": 140.0, "rsum_ci_high": 160.0},
        "i2i": figures(60.25) | interval,
        "datasets": {"t2i": "own", "i2i": "own"},
        "gain_over_zero_shot": {"t2i": gain},
        "others": {"MSMT17": {"i2i": figures(30.0)}},
        "composed": dict.fromkeys(("both", "picture", "sentence"), composed)
        | dict.fromkeys(("gain_over_picture", "gain_over_sentence"), gain)
        | {"counts": {"num_queries": 1020, "num_skipped": 7}},
        "calibration": {"t2i": calibrated(), "missing": {"i2i": "nobody is in val"}},
        "clusters": {"threshold": 0.9, "ari": 0.456, "homogeneity": 0.8, "completeness": 0.7}
        | {"num_found": 56, "num_true": 40, "num_alone": 7, "num_pictures": 200},
        "open_set": {
            "t2i": {
                "detection_rate": 12.34,
                "detection_rate_ci_low": 10.0,
                "detection_rate_ci_high": 14.0,
                "num_known": 12,
                "num_unknown": 13,
            }
        },
    }


def calibrated() -> dict:
    errors = {
        f"{name}{end}": value
        for name in ("ece", "ece_shown")
        for end, value in (("", 0.021), ("_ci_low", 0.01), ("_ci_high", 0.03))
    }
    alarms = {"promised": 0.01, "reached": 0.0123, "reached_ci_low": 0.008, "reached_ci_high": 0.017, "num_alarms": 77}
    counts = {"log_loss": 0.03, "prior": 0.01, "num_same": 50, "num_others": 6000}
    reasons = {"one_in_1000": "6 false alarms are expected"}
    return errors | counts | {"false_alarms": {"one_in_100": alarms | {"threshold": 2.1, "found": 44.4}}, "not_promised": reasons}


def baselines() -> dict:
    return {
        "zero_shot": {"t2i": figures(40.0) | {"rsum": 120.0}, "i2i": figures(41.0), "others": {"MSMT17": {"i2i": figures(10.0)}}},
        "colour_histogram": {"i2i": figures(9.5)},
        "colour_histogram_middle": {"i2i": figures(19.5)},
    }


def write(folder: Path, tables_folder: Path, evaluation: Path, metrics: dict | None = None) -> Path:
    """Everything that the report stage does, in `folder`."""
    curves = folder / "curves"
    curves.mkdir(parents=True)
    (curves / "train.csv").write_text(
        f"epoch,sdm,cic,total,{','.join(f'gradient_{number}' for number in range(4))},lr,val_t2i_mAP\n1,2,0,2,{'1,' * 4}1e-5,\n"
        f"2,1,0,1,{'1,' * 4}1e-5,31.5\n3,0.5,0,0.5,{'1,' * 4}1e-5,40.1\n"
    )
    for name in ("pretrain.csv", "construct_prompts.csv"):
        (curves / name).write_text("epoch\n0\n")
    write_json(folder / "metrics.json", metrics or measured())
    write_json(folder / "baselines.json", baselines())
    write_json(folder / "floors" / "histograms.json", {"colour_histogram": "RGB", "colour_histogram_middle": "HSV"})
    sources = Sources(
        manifests=tables_folder,
        evaluation=evaluation,
        histograms=folder / "floors",
        curves=curves,
        metrics=folder / "metrics.json",
        baselines=folder / "baselines.json",
    )
    params = load_params(ROOT / "params.yaml")
    own = params.model_copy(update={"profile": "own <b>", "profiles": {"own <b>": params.profiles["own"]}})
    write_report(folder / "reports", sources, own)
    return folder / "reports"


def write_cells(folder: Path, ablation: Ablation) -> Path:
    """Every cell of params.yaml, with figures drawn at random."""
    for number, (row, seed) in enumerate(ablation.cells):
        random = np.random.default_rng(number)
        metrics = {task: {name: round(random.uniform(40, 60), 2) for name in ("rank1", "mAP")} for task in ("t2i", "i2i")}
        cell = {"row": row, "seed": seed, "changes": ablation.changes[row], "steps": 300, "metrics": metrics}
        write_json(folder / f"{row}-{seed}.json", cell)
    return folder
