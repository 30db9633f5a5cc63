"""Output folders: whole or not at all, one writer at a time, and what a killed writer left does no harm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpl.files import HplError, output_folder
from tests.support.imports import ROOT

WRITER = """
import os, sys
from pathlib import Path
from hpl.files import output_folder
with output_folder(Path(sys.argv[1])) as folder:
    (folder / "sub").mkdir()
    (folder / "sub" / "half").write_text("half")
    print("writing", flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), 9)
    sys.stdin.read()
"""


def writer(folder: Path, how: str) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), how]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes)
    assert process.stdout.readline() == "writing\n"
    return process


def test_a_second_writer_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    first = writer(tmp_path / "out", "waits")
    with pytest.raises(HplError, match=r"\.out\.partial: another run is writing there; stop that one or wait for it"):
        with output_folder(tmp_path / "out"):
            pass
    first.communicate("")
    assert first.returncode == 0 and (tmp_path / "out" / "sub" / "half").read_text() == "half"
    with output_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_writer_left_is_no_part_of_the_next_output(tmp_path: Path) -> None:
    writer(tmp_path / "out", "killed").communicate()
    assert os.listdir(tmp_path) == [".out.partial"]
    with output_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["new"]


def test_a_failure_leaves_the_old_output_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="full"), output_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("half")
        raise OSError("full")
    assert os.listdir(tmp_path) == ["out"] and not os.listdir(tmp_path / "out")
