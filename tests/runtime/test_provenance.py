"""A model says what it was made from, and says the same until that changes."""

import hashlib
import json
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


def describe(folder: Path) -> dict:
    command = [sys.executable, "script.py"]
    run = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    )
    return json.loads(run.stdout)


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


def test_outside_of_git_the_commit_is_unknown(project: Path) -> None:
    (project / ".git").rename(project.parent / "elsewhere")
    assert describe(project)["commit"] == "unknown"
