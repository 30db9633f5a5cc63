"""The command: what it prints where, and how it ends."""

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpl.cli import app
from tests.support.imports import ROOT
from tests.support.small_model import draw_pictures, save_small_model

HEAVY = ["dvc", "matplotlib", "pandas", "sklearn", "hpl.manifests", "hpl.training", "hpl.prompts", "hpl.reports"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    save_small_model(folder / "model")
    draw_pictures(folder / "crops", 6)
    assert run("index", "add", folder / "g", folder / "crops", "--model", folder / "model").exit_code == 0
    return folder


def run(*words, stdin: str | None = None):
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def test_results_as_table_json_csv_and_page(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f'path,camera,note\n{folder}/crops/c0_0000.png,"=cmd|calc",+1\n')
    assert run("index", "add", tmp_path / "g", table, "--model", folder / "model").exit_code == 0
    rows = list(csv.DictReader(io.StringIO(run("search", tmp_path / "g", "-t", "a man", "--format", "csv").stdout)))
    assert rows[0]["camera"] == "'=cmd|calc" and rows[0]["note"] == "'+1"
    told = json.loads(run("search", folder / "g", "-i", folder / "crops/c1_0001.png", "-k", "2", "--format", "json").stdout)
    assert told["gallery_size"] == 6 and [each["rank"] for each in told["results"]] == [1, 2]
    assert told["results"][0]["path"].endswith("c1_0001.png")
    page = run("search", folder / "g", "-t", "<b>man</b>", "--format", "html").stdout
    assert page.count("data:image/jpeg;base64,") == 6 and "<b>man" not in page and "http" not in page.replace("http-equiv", "")
    assert len(run("search", folder / "g", "-i", "-", stdin=f"{folder}/crops/c1_0001.png\n").stdout.splitlines()) == 6


def test_exit_status_is_1_when_nothing_reaches_the_threshold(folder: Path) -> None:
    found = run("search", folder / "g", "-t", "a man", "--threshold", "1.5")
    assert found.exit_code == 1 and found.stdout == "" and "no calibration" in found.stderr
    assert run("index", "verify", folder / "g").exit_code == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["search", "{}/none", "-t", "a man"], "no gallery"),
        (["search", "{}/g"], "nothing is asked"),
        (["search", "{}/g", "-t", "?!"], "no known word"),
        (["search", "{}/g", "-i", "{}/model/model.json"], "model.json: not a picture"),
        (["search", "{}/g", "-i", "{}/none.jpg"], "none.jpg: picture not found"),
        (["search", "{}/g", "-t", "a man", "--where", "size=1"], "'size': not in the gallery"),
        (["search", "{}/g", "-t", "a man", "--after", "noon"], "'noon'; expected ISO 8601"),
        (["search", "{}/g", "-t", "a man", "--false-alarms", "0.01"], "no calibration"),
        (["search", "{}/g", "-t", "a man", "--engine", "fast"], "expected one of faiss, numpy, ivf"),
        (["info", "--model", "{}"], "no model"),
        (["index", "add", "{}/new", "{}/none", "--model", "{}/model"], "not found"),
        (["index", "add", "{}/crops", "{}/crops", "--model", "{}/model"], "holds other files"),
        (["index", "rm", "{}/g", "--expire", "soon"], "expected an age"),
        (["index", "rm", "{}/g", "nobody.png"], "nothing was removed"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder: Path, words: list[str], said: str) -> None:
    found = run(*(word.replace("{}", str(folder)) for word in words))
    assert found.exit_code == 2 and found.stdout == ""
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("error:")]
    assert said in line


def test_search_imports_nothing_of_the_pipeline() -> None:
    names = "hpl.cli, hpl.search.gallery, hpl.search.crop, hpl.search.output, hpl.backbones.trained, hpl.backbones.encoding"
    code = f"import sys, {names}; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_help_is_there_at_once() -> None:
    code = "import sys, hpl.cli; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "False False\n"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "hpl.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.6  # 0.22 on a quiet machine


def test_two_pictures_are_compared(folder: Path) -> None:
    one = folder / "crops/c1_0001.png"
    found = run("compare", one, one, "--model", folder / "model")
    assert found.exit_code == 0 and found.stdout == "1.0000\n"
    assert run("compare", one, "-t", "a man", "--model", folder / "model").exit_code == 0
    assert run("compare", one, "--model", folder / "model").exit_code == 2
