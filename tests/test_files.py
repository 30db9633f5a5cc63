"""Output folders: whole, by one writer at a time, as they were written; and messages fit for a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from hpl.files import HplError, check_sums, output_folder, parsing, readable, write_sums, write_text
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


@pytest.mark.parametrize(
    "message, shown",
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\u200bb \u00e9 \u7684", "a\\u200bb \u00e9 \u7684"),
        ("two faults\n  one\n  two", "two faults\n  one\n  two"),
        ("a file\nof two lines", r"a file\nof two lines"),
        ("\udcff", r"\udcff"),
        ("\0\r\t", r"\x00\r\t"),
    ],
)
def test_a_message_holds_nothing_that_a_terminal_obeys(message: str, shown: str) -> None:
    assert readable(HplError(message)) == shown


def test_a_line_without_end_is_cut_in_the_middle() -> None:
    shown = readable("file: " + "x" * 100_000 + "; expected a sentence")
    assert len(shown) < 1000 and shown.startswith("file: xx") and shown.endswith("expected a sentence")
    assert readable("x" * 1000) == "x" * 1000


@pytest.mark.parametrize("damage", ["byte", "missing", "more", "sums", "empty sums"])
def test_a_folder_that_is_not_as_it_was_written_is_refused(damage: str, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"abc")
    (tmp_path / "b.json").write_bytes(b"[]")
    write_sums(tmp_path)
    check_sums(tmp_path, "preprocess")
    if damage == "byte":
        (tmp_path / "a.parquet").write_bytes(b"abd")
    elif damage == "missing":
        (tmp_path / "b.json").unlink()
    elif damage == "more":
        (tmp_path / "c.json").touch()
    else:
        (tmp_path / "SHA256SUMS").write_bytes(b"" if damage == "empty sums" else b"\xff" * 70)
    with pytest.raises(HplError, match="not as the preprocess stage wrote it .*delete it and run that stage again"):
        check_sums(tmp_path, "preprocess")


def test_a_folder_without_sums_is_none(tmp_path: Path) -> None:
    with pytest.raises(HplError, match="SHA256SUMS: file not found; run the preprocess stage"):
        check_sums(tmp_path, "preprocess")


def test_what_a_parser_raises_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(HplError, match=r"x.npy: damaged, or of another version \(KeyError: 'a'\); delete it"):
        with parsing(Path("x.npy"), "delete it"):
            {}["a"]
    with pytest.raises(HplError, match="^as it is$"):
        with parsing(Path("x.npy"), "delete it"):
            raise HplError("as it is")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        OSError("100000 requested and 25584 written"),  # numpy
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_names_the_output_and_what_to_do(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(HplError, match="/out: no space left on the disk; make room, then run the same command again$"):
        with output_folder(tmp_path / "out"):
            raise error
    assert not os.listdir(tmp_path)


def test_half_a_text_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "text", "old")
    whole = Path.write_text

    def half(path: Path, text: str, **more: str) -> None:
        whole(path, text[:1], **more)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(HplError, match="/text: no space left on the disk"):
        write_text(tmp_path / "text", "new")
    assert os.listdir(tmp_path) == ["text"] and (tmp_path / "text").read_text() == "old"
