"""Messages fit for a terminal, and folders whose files are as they were written."""

from pathlib import Path

import pytest

from hpl.files import HplError, check_sums, parsing, readable, write_sums


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
