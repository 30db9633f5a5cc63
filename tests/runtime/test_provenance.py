"""A model says what it was made from, and says the same until that changes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import ROOT

SCRIPT = """
import json, sys
from pathlib import Path
import hpl.runtime.provenance
print(json.dumps(hpl.runtime.provenance.provenance({"data": Path("data.bin")})))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the module, a script that uses it, and one that has nothing to do with it."""
    for name in ("hpl/__init__.py", "hpl/backbones/__init__.py", "hpl/runtime/provenance.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "other.py").write_text("1\n")
    (tmp_path / "data.bin").write_bytes(b"pictures")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    return subprocess.run(["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "state")
    return git(folder, "rev-parse", "HEAD")


def run(folder: Path, script: str = "script.py", **environment: str) -> subprocess.CompletedProcess:
    clean = {"PYTHONPATH": ".", "PATH": "/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    return subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, check=True, env=clean | environment
    )


def describe(folder: Path) -> dict:
    return json.loads(run(folder).stdout)


def test_commit_versions_and_data(project: Path) -> None:
    first = git(project, "rev-parse", "HEAD")
    described = describe(project)
    assert described["commit"] == first and {"python", "torch", "open_clip_torch"} <= set(described["versions"])
    assert described["data"] == {"data": hashlib.sha256(b"pictures").hexdigest()}

    (project / "other.py").write_text("2\n")
    commit(project)
    assert describe(project) == described  # other code changed

    (project / "script.py").write_text(SCRIPT + "\n")
    assert describe(project)["commit"] == first + " + changes"
    assert describe(project)["commit"] != commit(project) + " + changes"
    assert describe(project)["commit"] == git(project, "rev-parse", "HEAD")


def test_in_a_copy_of_dvc_the_commit_is_that_of_the_code(project: Path) -> None:
    """`dvc exp run --temp` runs a script of its copy, a repository, on modules installed from the checkout."""
    expected = describe(project)["commit"]
    copy = project / ".dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    for name in ("script.py", "data.bin"):
        shutil.copy(project / name, copy / name)
    git(copy, "init", "-q")
    commit(copy)
    assert json.loads(run(copy, PYTHONPATH=str(project)).stdout)["commit"] == expected


def refused(folder: Path, **environment: str) -> tuple[str, str]:
    """What is written, and what stderr says, where git refuses: a script that asks twice tells it once."""
    (folder / "script.py").write_text(SCRIPT + SCRIPT)
    done = run(folder, **environment)
    first, second = (json.loads(line)["commit"] for line in done.stdout.splitlines())
    assert first == second and done.stderr.count("git: ") == 1
    return first, done.stderr


def test_outside_of_git_the_commit_is_unknown_and_why(project: Path) -> None:
    shutil.rmtree(project / ".git")
    written, told = refused(project, GIT_CEILING_DIRECTORIES=str(project.parent))
    assert written == "unknown (git: not a git repository (or any of the parent directories): .git)"
    assert told == "the model cannot say of which commit its code is; " + written[len("unknown (") : -1] + "\n"


@pytest.mark.parametrize("way", ["chown", "assumed"])
def test_in_a_checkout_of_another_user_git_says_so(project: Path, way: str) -> None:
    """As in a container; the path of the machine stays out of what is written."""
    if way == "chown" and os.geteuid():
        pytest.skip("only root can give a folder away")
    environment = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"} if way == "assumed" else {}
    for path in (project, project / ".git") if way == "chown" else ():
        os.chown(path, 12345, 12345)
    written, told = refused(project, **environment)
    assert written == "unknown (git: detected dubious ownership in repository)"
    assert f"ownership in repository at '{project}' To add" in told and f"safe.directory {project}\n" in told


def test_code_that_was_never_committed_and_a_missing_git(project: Path) -> None:
    shutil.rmtree(project / ".git")
    git(project, "init", "-q", "-b", "main")
    assert refused(project)[0] == "unknown (git: your current branch 'main' does not have any commits yet)"
    git(project, "commit", "-qm", "empty", "--allow-empty")
    assert refused(project)[0] == "unknown (git: no commit holds this code)"
    assert refused(project, PATH="/nowhere")[0] == "unknown (git: it cannot be run (No such file or directory))"
