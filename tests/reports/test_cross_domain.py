"""The cross-domain matrix, from runs that DVC and git hold."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from hpl.files import HplError
from hpl.reports.cross_domain import cross_domain
from tests.support.repository import git

T2I, I2I = {"rank1": 50.0, "mAP": 40.0}, {"rank1": 90.0, "mAP": 80.0}


def commit(folder: Path, branch: str, trained: list[str], metrics: dict, **params: object) -> None:
    """A run as it lies in git: its parameters, and the figures of the sets that it was tested on."""
    names = {"CUHK-PEDES": "cuhk-pedes", "ICFG-PEDES": "icfg-pedes", "Market-1501": "market-1501"}
    datasets = [
        {"format": kind, "folder": name, "use": ["train", "test"] if name in trained else ["test"]}
        for name, kind in names.items()
    ]
    params |= {"profile": "x", "profiles": {"x": {"data": {"datasets": datasets, "val_share": 0.0}}}}
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
    missing = {"Market-1501": {"i2i": "all 9 pictures are by camera 3"}}
    icfg = {"datasets": {"t2i": "CUHK-PEDES"}, "t2i": {"rank1": 1.0, "mAP": 2.0}, "not_scored": missing}
    commit(folder, "icfg", ["ICFG-PEDES"], icfg)
    commit(folder, "old", ["ICFG-PEDES"], {"t2i": T2I})
    ranked = {
        "datasets": {"t2i": "CUHK-PEDES"},
        "t2i": T2I | {"rank1_ci_low": 44.0, "rank1_ci_high": 55.0},
        "settings": {"rerank": 1},
    }
    commit(folder, "ranked", ["ICFG-PEDES"], ranked)
    commit(folder, "weight", ["ICFG-PEDES"], {"datasets": {"t2i": "CUHK-PEDES"}, "t2i": T2I}, loss={"prompt_reg": 0.5})
    git(folder, "checkout", "-q", "-b", "broken")
    (folder / "params.yaml").write_text("profile: none\nprofiles: {}\n")
    git(folder, "commit", "-qam", "no profile")
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


def test_what_was_not_scored_is_said_with_its_reason(repository: Path) -> None:
    text = cross_domain(["cuhk-0", "icfg"])
    assert text.count("Not scored: `Market-1501, image to image`: all 9 pictures are by camera 3.") == 1
    assert "Not scored" not in cross_domain(["cuhk-0"])


def test_other_methods_and_settings_are_rows_of_their_own_and_a_run_named_twice_counts_once(repository: Path) -> None:
    lines = cross_domain(["icfg", "ranked", "weight", "icfg"]).splitlines()
    assert [line for line in lines if line.startswith("| ICFG")] == [
        "| ICFG-PEDES | 1 | 1.00 / 2.00 |",
        "| ICFG-PEDES, re-ranked | 1 | 50.00 (44.0-55.0) / 40.00 |",
        "| ICFG-PEDES, loss.prompt\\_reg: 0.5 | 1 | 50.00 / 40.00 |",
    ]


@pytest.mark.parametrize(
    "revision, complaint",
    [
        ("nowhere", "nowhere: .*expected a commit"),
        ("old", "old: .*run its evaluate"),
        ("broken", "broken: its params.yaml has no profile"),
    ],
)
def test_a_run_that_cannot_be_read_is_named(repository: Path, revision: str, complaint: str) -> None:
    with pytest.raises(HplError, match=complaint):
        cross_domain(["icfg", revision])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_checkout_of_another_user_is_told_as_git_tells_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    for path in (repository, repository / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(HplError, match=r"^git: detected dubious ownership in repository at .* safe.directory") as caught:
        cross_domain(["icfg"])
    assert "\n" not in str(caught.value)
