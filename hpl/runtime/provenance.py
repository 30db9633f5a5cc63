"""What a model was made from, so that the artefact describes itself: commit, versions, and hashes of its data."""

import hashlib
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "pytorch-metric-learning", "numpy")


def provenance(inputs: dict[str, Path]) -> dict:
    """JSON that describes a run of a stage; call it in the project's root.

    Args:
        inputs: name -> file. The manifest of pictures holds the hash of every picture, so its own hash stands for them all.

    Returns:
        commit: the last one that changed the script or a module of ours that it imported, "+ changes" if one of them is not as
        committed, "unknown" outside of git; versions; data: SHA-256 of each input.
    """
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    data = {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in inputs.items()}
    return {"commit": _commit(), "versions": versions, "data": data}


def loaded_modules() -> list[str]:
    """Files of the hpl modules that this process has imported, sorted."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "hpl"]
    return sorted(module.__file__ for module in modules if module.__file__)


def _commit() -> str:
    """Of the code that runs alone: committing the results of a run, or other code, must not change what the next run writes."""
    code = ["--", *loaded_modules(), sys.argv[0]]
    try:
        last = _git("log", "-1", "--format=%H", *code)
        return last + (" + changes" if last and _git("status", "--porcelain", *code) else "") or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
