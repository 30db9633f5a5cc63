"""The ablation on a miniature profile, by the commands that a user types: side by side, with a row that fails, and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.pipeline import copy_project, ran, run, start

pytestmark = pytest.mark.slow

CELLS = "data/ablation/cells"


def change(project: Path, **changes: object) -> None:
    """Set keys of the section `ablation`, or checkpoint_seconds."""
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    for key, value in changes.items():
        (params if key == "checkpoint_seconds" else params["ablation"])[key] = value
    yaml.dump(params, project / "params.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    copy_project(folder)
    rows = {"trt": {"prompt.enabled": False}, "hpl_cmpr": {"profiles.bundled.train.peak_lr": 1e30}}
    change(folder, seeds=[0, 1], sweeps={}, rows=rows)
    return folder


def test_a_row_that_fails_loses_no_other_and_reruns_alone_when_it_is_mended(project: Path) -> None:
    run(project, "dvc", "repro", "preprocess", "pretrain")
    output = run(project, "ablation/run", "2", fails=True)
    assert output.splitlines()[-1].split(": ")[0] == "failed cells"
    assert sorted(output.splitlines()[-1].split()[2:]) == ["ablate@hpl_cmpr-0", "ablate@hpl_cmpr-1"]
    assert output.count("non-finite loss") == 2 and "Traceback" not in output
    assert sorted(file.name for file in (project / CELLS).glob("*.json")) == ["trt-0.json", "trt-1.json"]
    page = (project / "reports/ablation/README.md").read_text()
    assert "- Cells: 2 of 4" in page and "- Missing, and left out of every number: hpl\\_cmpr, seeds 0, 1" in page
    cell = json.loads((project / CELLS / "trt-1.json").read_text())
    assert cell["changes"] == {"prompt.enabled": False} and cell["seed"] == 1 and cell["steps"] > 0
    assert set(cell["metrics"]) == {"t2i", "i2i"}

    change(project, rows={"trt": {"prompt.enabled": False}, "hpl_cmpr": {}})
    output = run(project, "dvc", "repro", "ablation/dvc.yaml")
    assert ran(output) == [f"ablation/dvc.yaml:{name}" for name in ("ablate@hpl_cmpr-0", "ablate@hpl_cmpr-1", "ablation_report")]
    assert "cache pictures" not in output  # the stage I of the failed cells is used again
    page = (project / "reports/ablation/README.md").read_text()
    assert "- Cells: 4 of 4" in page and "Missing" not in page
    assert ran(run(project, "dvc", "repro", "ablation/dvc.yaml")) == []


def test_a_number_of_jobs_that_is_none_runs_nothing(project: Path) -> None:
    output = run(project, "ablation/run", "two", fails=True)
    assert output.strip() == "error: JOBS is 'two'; expected how many cells run side by side, such as 2"


def test_a_cell_that_is_killed_goes_on_and_ends_with_the_same_bytes(project: Path) -> None:
    change(project, checkpoint_seconds=0)
    cell = project / CELLS / "trt-1.json"
    before = cell.read_bytes()
    command = [sys.executable, "stages/ablate.py", "trt", "1", "data/manifests", "data/pictures", "data/backbone", "again.json"]
    process = start(project, *command)
    while process.poll() is None and not list((project / ".resume/ablation/cells").glob("*/state.pt")):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "going on from .resume/ablation/cells" in run(project, *command)
    assert (project / "again.json").read_bytes() == before


@pytest.mark.parametrize("gpus, expected", [("5,7", {"5", "7"}), ("", {"unset"})])
def test_cells_side_by_side_take_the_gpus_in_turn(project: Path, tmp_path: Path, gpus: str, expected: set[str]) -> None:
    """By a dvc that notes where each cell was sent, and takes its time, so that both run at once."""
    dvc = tmp_path / "dvc"
    dvc.write_text(
        '#!/bin/sh\ncase "$*" in *list*) printf "a@1\\na@2\\na@3\\na@4\\n" ;;'
        f' *@*) echo "${{CUDA_VISIBLE_DEVICES-unset}}" >>"{tmp_path}/seen"; sleep 0.3 ;; esac\n'
    )
    dvc.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PATH": f"{tmp_path}:{environment['PATH']}", "GPUS": gpus}
    subprocess.run(["ablation/run", "2"], cwd=project, env=environment, check=True, capture_output=True)
    seen = (tmp_path / "seen").read_text().split()
    assert len(seen) == 4 and set(seen) == expected
