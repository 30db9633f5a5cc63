"""What a model was made from, so that the artefact describes itself: commit, versions, and hashes of its data."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "pytorch-metric-learning", "numpy")


def provenance(inputs: dict[str, Path]) -> dict:
    """JSON that describes a run of a stage; call it in the project's root.

    Args:
        inputs: name -> file. The manifest of pictures holds the hash of every picture, so its own hash stands for them all.

    Returns:
        commit: the last one that changed the script or a module of ours that it imported, "+ changes" if one of them is not as
        committed, "unknown (git: ...)" where git says nothing else, which stderr tells too; versions; data: SHA-256 of each.
    """
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    data = {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in inputs.items()}
    return {"commit": _commit(), "versions": versions, "data": data}


def loaded_modules() -> list[str]:
    """Files of the hpl modules that this process has imported, sorted."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "hpl"]
    return sorted(module.__file__ for module in modules if module.__file__)


def _commit() -> str:
    """Of the code that runs alone: committing the results of a run, or other code, must not change what the next run writes.

    Git is asked where the code lies: `dvc exp run --temp` works in a copy, which is a repository of its own.
    """
    home = Path(__file__).parents[2]
    code = ["--", *loaded_modules(), sys.argv[0]]
    status, last, reason = ask_git(home, "log", "-1", "--format=%H", *code)
    if not status and last:
        status, changes, reason = ask_git(home, "status", "--porcelain", *code)
        if not status:
            return last + (" + changes" if changes else "")
    reason = reason or "no commit holds this code"
    _tell(f"the model cannot say of which commit its code is; git: {reason}")
    without_paths = re.sub(r"( at)? '/[^']*'", "", reason.partition(" To add ")[0])  # which are of one machine
    return f"unknown (git: {without_paths})"


@cache
def _tell(text: str) -> None:
    """Print a line to stderr, once a process."""
    print(text, file=sys.stderr)


def ask_git(root: Path, *command: str) -> tuple[int, str, str]:
    """Run git in a folder. Returns its exit status, what it prints, and its complaint in one line.

    A status above 1 is a failure, and git said why: a checkout of another user, no repository, an unknown revision, no git.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *command], cwd=root, capture_output=True, env=environment, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        return 127, "", f"it cannot be run ({error.strerror})"
    return done.returncode, done.stdout.strip(), " ".join(done.stderr.split()).removeprefix("fatal: ")
