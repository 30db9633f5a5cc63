"""A copy of the project with a miniature profile, and the commands that a user types there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.support.imports import ROOT

MINIATURE = {
    "synthetic": {
        "pretrain_people": 12, "pretrain_pictures": 2, "caption_train_people": 10, "caption_val_people": 2,
        "caption_test_people": 8, "picture_train_people": 10, "picture_test_people": 8, "picture_pictures": 6, "num_cameras": 3,
        "same_side_overlap": 3, "cross_side_overlap": 4, "distractors": 4, "junk": 3,
    },
    "profiles.bundled": {
        "input": {"height": 48, "width": 24},
        "backbone": {
            "patch_size": 12, "embed_dim": 32, "vision_width": 32, "vision_layers": 1, "text_width": 32, "text_layers": 1
        },
        "pretrain": {"epochs": 1, "batch_size": 8},
        "construct_prompts": {"epochs": 1, "batch_size": 16},
        "train": {"epochs": 2, "t2i_batch": 8, "i2i_batch": 8},
    },
}  # fmt: skip


def start(project: Path, *command: str) -> subprocess.Popen:
    """Start a command as a user would, in a process group of its own."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "DVC_NO_ANALYTICS": "1",
    }
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=project, env=environment, start_new_session=True, **pipes)


def run(project: Path, *command: str, fails: bool = False) -> str:
    """Run a command; returns what it printed."""
    process = start(project, *command)
    output, _ = process.communicate()
    assert (process.returncode != 0) == fails, output[-4000:]
    return output


def ran(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def restore(project: Path) -> None:
    """Parameters, lock file and outputs as they were committed; a failed `dvc exp run` leaves its own."""
    (project / "params.yaml").touch()
    run(project, "git", "checkout", "-q", "--", ".")
    run(project, "dvc", "checkout", "-q", "dvc.yaml")  # the ablation may not have run


def copy_project(folder: Path) -> None:
    """A copy of the tracked files with miniature parameters, as a git repository with nothing committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file() and not name.startswith("reports/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for lock in ("dvc.lock", "ablation/dvc.lock"):
        (folder / lock).unlink(missing_ok=True)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["synthetic"].update(MINIATURE["synthetic"])
    for section, values in MINIATURE["profiles.bundled"].items():
        params["profiles"]["bundled"][section].update(values)
    yaml.dump(params, folder / "params.yaml")
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.email", "nobody@example.org")
    run(folder, "git", "config", "user.name", "nobody")
