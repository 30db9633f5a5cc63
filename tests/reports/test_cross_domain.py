"""The cross-domain matrix, from runs that DVC and git hold."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from hpl.files import HplError
from hpl.reports.cross_domain import cross_domain
from tests.reports.test_pull_request import git

T2I, I2I = {"rank1": 50.0, "mAP": 40.0}, {"rank1": 90.0, "mAP": 80.0}


def commit(folder: Path, branch: str, trained: list[str], metrics: dict) -> None:
    """A run as it lies in git: its parameters, and the figures of the sets that it was tested on."""
    names = {"CUHK-PEDES": "cuhk-pedes", "ICFG-PEDES": "icfg-pedes", "Market-1501": "market-1501"}
    datasets = [
        {"format": kind, "folder": name, "use": ["train", "test"] if name in trained else ["test"]}
        for name, kind in names.items()
    ]
    params = {"profile": "x", "profiles": {"x": {"data": {"datasets": datasets, "val_share": 0.0}}}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports/metrics.json").write_text(json.dumps(metrics))
    git(folder, "checkout", "-q", "-B", branch)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", branch)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path
    monkeypatch.chdir(folder)
    git(folder, "init", "-q", "-b", "main")
    subprocess.run(["dvc", "init", "-q"], cwd=folder, check=True)
    first = {"t2i": "CUHK-PEDES", "i2i": "Market-1501"}
    for seed in (0, 1):
        others = {"ICFG-PEDES": {"t2i": {"rank1": 30.0 + 2 * seed, "mAP": 20.0}}}
        commit(
            folder, f"cuhk-{seed}", ["CUHK-PEDES", "Market-1501"], {"datasets": first, "t2i": T2I, "i2i": I2I, "others": others}
        )
    commit(folder, "icfg", ["ICFG-PEDES"], {"datasets": {"t2i": "CUHK-PEDES"}, "t2i": {"rank1": 1.0, "mAP": 2.0}})
    commit(folder, "old", ["ICFG-PEDES"], {"t2i": T2I})
    return folder


def test_rows_are_what_was_trained_on_and_columns_what_was_tested(repository: Path) -> None:
    text = cross_domain(["cuhk-0", "cuhk-1", "icfg"])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "| trained on | runs | CUHK-PEDES | ICFG-PEDES |",
        "|---|---:|---:|---:|",
        "| CUHK-PEDES + Market-1501 | 2 | 50.00 ± 0.00 / 40.00 ± 0.00 † | 31.00 ± 1.41 / 20.00 ± 0.00 |",
        "| ICFG-PEDES | 1 | 1.00 / 2.00 | - |",
        "| trained on | runs | Market-1501 |",
        "|---|---:|---:|",
        "| CUHK-PEDES + Market-1501 | 2 | 90.00 ± 0.00 / 80.00 ± 0.00 † |",
        "| ICFG-PEDES | 1 | - |",
    ]


@pytest.mark.parametrize("revision, complaint", [("nowhere", "nowhere: .*expected a commit"), ("old", "old: .*run its evaluate")])
def test_a_run_that_cannot_be_read_is_named(repository: Path, revision: str, complaint: str) -> None:
    with pytest.raises(HplError, match=complaint):
        cross_domain(["icfg", revision])
