"""Mutated inputs against every reader (`make fuzz` has 2,000), and that the oracles see what they are for."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from hpl.files import HplError
from hpl.readers import build
from hpl.readers.records import PictureRecord, Reading
from tests.support.fuzz import reference
from tests.support.fuzz.mutate import mutate_bytes, mutate_json, mutate_lines
from tests.support.fuzz.targets import TARGETS, Wrong, compare
from tests.support.imports import ROOT

RECORD = {"file_path": "1.png", "id": 1, "split": "train", "captions": ["A man."]}


@pytest.mark.slow
def test_mutated_inputs_are_read_right_or_refused() -> None:
    command = [sys.executable, "-m", "tests.support.fuzz", "400", "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "400 inputs, seed 12: 0 findings" in done.stdout


def test_a_seed_gives_the_same_inputs() -> None:
    for mutate in (lambda rng: mutate_json([RECORD] * 3, rng), lambda rng: mutate_lines("a b\nc d", rng, " ")):
        assert mutate(random.Random("1 2")) == mutate(random.Random("1 2"))
    data = bytes(range(256))
    assert len({mutate_bytes(data, random.Random(n)) for n in range(50)}) > 40


@pytest.mark.parametrize("fault", ["lost", "other", "leaves"])
def test_a_wrong_record_is_noticed(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "reid_raw.json").write_text(json.dumps([RECORD, {**RECORD, "file_path": "2.png"}]))
    sound = list(build.READERS["cuhk-pedes"](tmp_path).records)
    changed = {
        "lost": sound[:1],
        "other": [sound[0], _with(sound[1], person="2")],
        "leaves": [sound[0], _with(sound[1], path="../2")],
    }

    def both() -> list[reference.Record]:
        return reference.caption_set(tmp_path, "reid_raw.json", "file_path", 1)

    compare("cuhk-pedes", tmp_path, both)
    monkeypatch.setitem(build.READERS, "cuhk-pedes", lambda root: Reading(records=changed[fault]))
    with pytest.raises(Wrong):
        compare("cuhk-pedes", tmp_path, both)


def _with(record: PictureRecord, **changes: object) -> PictureRecord:
    keys = ("path", "split", "role", "person", "source_pid", "camid", "captions", "anonymous")
    return PictureRecord(**{key: getattr(record, key) for key in keys} | changes)


def test_a_needless_refusal_and_a_needless_reading_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path) -> Reading:
        raise HplError("no")

    monkeypatch.setitem(build.READERS, "table", refuse)
    with pytest.raises(Wrong, match="refused"):
        compare("table", tmp_path, lambda: [])
    monkeypatch.setitem(build.READERS, "table", lambda root: Reading(records=[]))
    with pytest.raises(Wrong, match="second reader refuses"):
        compare("table", tmp_path, lambda: reference.need(False))


@pytest.mark.parametrize("text", ["print('a')", "open('/etc/hostname').close()", "import subprocess; subprocess.run(['true'])"])
def test_what_is_opened_outside_or_started_is_noticed(text: str, tmp_path: Path) -> None:
    script = (
        "import random, sys; from pathlib import Path; from hpl.files import HplError\n"
        "from tests.support.fuzz.__main__ import Watch, try_case\n"
        "watch = Watch(Path(sys.argv[1]))\n"
        "print(try_case(lambda rng: exec(sys.argv[2]), random.Random(0), watch)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), text], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ("read" if text.startswith("print") else "opened outside")


def test_csv_cells_as_the_standard_has_them() -> None:
    assert reference.csv_rows('a,"b ""c"", d"\r\n\n"x\ny",\n') == [["a", 'b "c", d'], ["x\ny", ""]]
    for text in ('"a"b\n', '"a', "a\rb"):
        with pytest.raises(reference.Refused):
            reference.csv_rows(text)


def test_every_format_is_among_the_targets() -> None:
    covered = set(TARGETS) | {"dukemtmc-reid"} | ({"table"} if {"csv", "parquet"} <= set(TARGETS) else set())
    assert set(build.READERS) <= covered
