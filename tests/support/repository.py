"""Git repositories of a test's own."""

import subprocess
from pathlib import Path


def git(folder: Path, *command: str) -> str:
    named = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *named, *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
