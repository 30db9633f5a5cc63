"""`hpl serve` as a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HPL = [sys.executable, "-m", "hpl.cli"]


@contextmanager
def served(gallery: Path, *options: str) -> Iterator[str]:
    """Start it on a free port, yield the address that it tells, and end it."""
    process = subprocess.Popen([*HPL, "serve", str(gallery), "--port", "0", *options], stderr=subprocess.PIPE, text=True)
    try:
        yield next(word for line in process.stderr for word in line.split() if word.startswith("http://"))
        process.terminate()
        assert process.wait(20) is not None
    finally:
        process.kill()
        process.wait()
