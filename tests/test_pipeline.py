"""The whole pipeline on a miniature profile, by the commands that a user types, in a copy of the project."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.support.imports import ROOT
from tests.support.pipeline import copy_project, ran, restore, run, start

pytestmark = pytest.mark.slow


def digests(project: Path) -> dict[str, str]:
    """Hash of each file of the tracked outputs."""
    files = [
        path
        for folder in ("data", "reports")
        for path in (project / folder).rglob("*")
        if path.is_file() and path.name != ".gitignore"
    ]
    return {str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy, reproduced once and committed."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    for command in (("true",), ("dvc", "repro")):  # code is committed before the run, results after
        run(folder, *command)
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-qm", "miniature")
    return folder


def test_every_output_is_there_and_says_what_it_should(project: Path) -> None:
    metrics = json.loads((project / "reports/metrics.json").read_text())
    baselines = json.loads((project / "reports/baselines.json").read_text())
    names = {"rank1", "rank5", "rank10", "mAP", "mINP", "num_queries", "num_skipped"}
    for figures in (metrics["t2i"], metrics["i2i"], *baselines["zero_shot"].values(), baselines["colour_histogram"]["i2i"]):
        assert names <= set(figures) and all(0 <= figures[name] <= 100 for name in ("rank1", "mAP", "mINP"))
    images = pd.read_parquet(project / "data/manifests/images.parquet")
    training = images[images["role"].isin(["train", "pretrain"])]
    assert not set(training["pid"]) & set(images.loc[(images["split"] == "test") & (images["pid"] > 0), "pid"])
    assert (images["role"] == "dropped").any()
    page = (project / "reports/README.md").read_text()
    for name in ("curves_train", "contact_sheet", "attention", "rank_lists_t2i", "rank_lists_i2i"):
        assert f"(figures/{name}.png)" in page and (project / f"reports/figures/{name}.png").stat().st_size > 5000
    assert (project / "reports/index.html").read_text().count("<img ") == len(list((project / "reports/figures").glob("*.png")))
    assert f"{metrics['t2i']['rank1']:.2f}" in page and f"{baselines['zero_shot']['i2i']['mAP']:.2f}" in page


def test_nothing_runs_twice(project: Path) -> None:
    assert ran(run(project, "dvc", "repro")) == []


def test_a_loss_weight_reruns_training_and_what_follows(project: Path) -> None:
    output = run(project, "dvc", "exp", "run", "-S", "loss.prompt_reg=0.5")
    assert ran(output) == ["train", "calibrate", "evaluate", "report"]
    restore(project)


def test_two_processes_do_the_work_of_one(project: Path) -> None:
    names = ["pretrain", "construct_prompts", "train"]
    before = [pd.read_csv(project / f"data/curves/{name}.csv") for name in names]
    output = run(project, "dvc", "exp", "run", "-S", "num_processes=2")
    stages = ["pretrain", "cache_features", "construct_prompts", "train", "calibrate", "baselines", "evaluate", "report"]
    assert sorted(ran(output)) == sorted(stages)
    assert not any(list((project / ".resume" / name).glob("*")) for name in names)  # the first process has cleaned up
    for name, one in zip(names, before, strict=True):
        pd.testing.assert_frame_equal(pd.read_csv(project / f"data/curves/{name}.csv"), one, rtol=1e-3)
    restore(project)
    output = run(project, "dvc", "exp", "run", "-S", "num_processes=9", fails=True)
    assert "error: num_processes = 9, but a step has only" in output and "Traceback" not in output
    restore(project)


def test_a_cell_of_the_ablation_with_the_default_parameters_gives_the_figures_of_the_pipeline(project: Path) -> None:
    """And a root `dvc repro` knows nothing of it."""
    run(project, "dvc", "repro", "-s", "ablation/dvc.yaml:ablate@hpl_cmpr-0")
    cell = json.loads((project / "data/ablation/cells/hpl_cmpr-0.json").read_text())
    metrics = json.loads((project / "reports/metrics.json").read_text())
    for task in ("t2i", "i2i"):
        assert cell["metrics"][task]["num_queries"] and cell["metrics"][task].items() <= metrics[task].items()
    assert ran(run(project, "dvc", "repro")) == []
    shutil.rmtree(project / "data/ablation")
    (project / "ablation/dvc.lock").unlink()


def test_a_misspelt_key_is_refused(project: Path) -> None:
    output = run(project, "dvc", "exp", "run", "-S", "loss.promt_reg=0.5", fails=True)
    assert "promt_reg" in output and "Traceback" not in output
    output = run(project, "dvc", "exp", "run", "-S", "+loss.promt_reg=0.5", fails=True)
    assert "loss.promt_reg: unknown key; did you mean loss.prompt_reg?" in output and "Traceback" not in output
    output = run(project, "dvc", "exp", "run", "-S", "loss.prompt_reg=lots", fails=True)
    assert "loss.prompt_reg = 'lots': expected a valid number" in output and "Traceback" not in output
    restore(project)


def test_another_profile_is_one_command_and_names_the_missing_data(project: Path) -> None:
    output = run(project, "dvc", "exp", "run", "-S", "profile=paper-cuhk-market", fails=True)
    assert "data/raw/paper-cuhk-market" in output and "Traceback" not in output
    restore(project)


def test_a_broken_picture_is_one_line_and_leaves_nothing_half_written(project: Path) -> None:
    victim = next((project / "data/raw/bundled/Market-1501/query").glob("*.jpg"))
    whole, before = victim.read_bytes(), (project / "data/manifests/images.parquet").read_bytes()
    victim.chmod(0o644)
    victim.unlink()
    victim.write_bytes(whole[:300])
    command = [sys.executable, "stages/preprocess.py", "data/raw/bundled", "data/manifests", "data/pictures"]
    output = run(project, *command, fails=True)
    victim.write_bytes(whole)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and str(victim.relative_to(project)) in errors[0] and "Traceback" not in output
    assert (project / "data/manifests/images.parquet").read_bytes() == before
    assert not list(project.glob("data/.*.partial"))


def test_the_curves_draw(project: Path) -> None:
    run(project, "dvc", "plots", "show", "-o", "plots")
    page = (project / "plots" / "index.html").read_text()
    for column in ("contrast", "i2t", "vgps", "cmpr"):  # a curve of each training
        assert f'"{column}"' in page, column
    shutil.rmtree(project / "plots")


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    before = digests(project)
    shutil.rmtree(project / ".resume")  # what preprocess keeps would spare it the work
    assert len(ran(run(project, "dvc", "repro", "--force"))) == 11
    assert digests(project) == before


def save_every_step(project: Path) -> None:
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    params["checkpoint_seconds"] = 0
    yaml.dump(params, project / "params.yaml")


def test_dvc_repro_killed_at_random_moments_ends_with_the_same_bytes(project: Path) -> None:
    """kill -9 of everything while `dvc repro` works; the same command again goes on."""
    before, random = digests(project), np.random.default_rng(0)
    shutil.rmtree(project / ".resume", ignore_errors=True)
    save_every_step(project)
    (project / "dvc.lock").unlink()
    kills = 0
    while True:
        process = start(project, "dvc", "repro", "--no-run-cache")  # DVC would take results of earlier runs from its cache
        try:
            output, _ = process.communicate(timeout=random.uniform(8, 16) if kills < 4 else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            kills += 1
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output[-3000:]
    assert kills >= 3
    assert digests(project) == before
    assert not [file for file in (project / ".resume").rglob("*") if file.is_file() and "preprocess" not in file.parts]
    restore(project)


@pytest.mark.parametrize("stage", ["pretrain", "construct_prompts", "train"])
def test_a_stage_killed_in_its_loop_goes_on_from_its_last_step(project: Path, stage: str) -> None:
    before, random = digests(project), np.random.default_rng(1)
    save_every_step(project)
    commands = YAML(typ="safe").load(project / "dvc.yaml")["stages"]
    command = [sys.executable, *commands[stage]["cmd"].split()[1:]]
    process = start(project, *command)
    while process.poll() is None and not list((project / ".resume" / stage).glob("*/state.pt")):
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.05))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and list((project / ".resume" / stage).glob("*/state.pt"))
    assert "going on from .resume" in run(project, *command)
    assert digests(project) == before
    restore(project)


def test_faults_at_random_moments_change_no_byte_and_leave_nothing(project: Path, tmp_path: Path) -> None:
    """`make soak`, shortened: on a copy, with one process."""
    command = [sys.executable, "-m", "tests.support.soak", "--kills", "8", "--chain", "2", "--seconds", "45"]
    command += ["--prepared", str(project), "--out", str(tmp_path / "account")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (tmp_path / "account").is_file(), done.stderr[-3000:]
    account = json.loads((tmp_path / "account").read_text())
    assert done.returncode == 0 and account["kills"], (account, done.stderr[-3000:])
    if account["skipped"]:
        pytest.skip("; ".join(account["skipped"]))
