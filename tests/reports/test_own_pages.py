"""What the stages write into README.md and docs/results.md: the committed reports, and nothing else."""

import json
from pathlib import Path

import pytest
import yaml

from hpl.ablation.page import write_main_table
from hpl.config import Params, load_params
from hpl.files import HplError
from hpl.reports.content import established, figure_labels, write_tables
from hpl.reports.pull_request import FIGURES_FOLDER, METRICS, PARAMS
from hpl.reports.results import write_headline
from hpl.tasks import I2I, T2I
from tests.support.imports import ROOT
from tests.support.reported import baselines, measured

START, END = "<!-- results: written by the report stage -->", "<!-- end of results -->"
PAGES = ["README.md", "docs/results.md"]


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "docs" / "page.md"
    file.parent.mkdir()
    file.write_bytes(f"# Above\r\n{START}\nold\n{END}\r\n\\1 below".encode())
    return file


def test_what_stands_outside_the_marks_stays(page: Path) -> None:
    for _ in range(2):  # writing again changes nothing
        write_tables(page, "results", "| new \\1 |")
        assert page.read_bytes().decode() == f"# Above\r\n{START}\n| new \\1 |\n{END}\r\n\\1 below"
    before = page.stat().st_mtime_ns
    write_tables(page, "ablation", "elsewhere")
    assert page.stat().st_mtime_ns == before and list(page.parent.iterdir()) == [page]


def test_a_block_without_an_end_is_named(page: Path) -> None:
    page.write_text(f"{END}\n{START}\nold\n")
    with pytest.raises(HplError, match=f"page.md: expected `{END}` after `{START}`"):
        write_tables(page, "results", "new")
    assert page.read_text() == f"{END}\n{START}\nold\n"


def test_the_headline_says_what_was_run_and_what_is_established(page: Path, params: Params) -> None:
    write_headline(page.parents[1] / "reports", [page], measured(), baselines(), params.model_copy(update={"seed": 7}))
    text = page.read_text()
    assert (
        "Profile bundled (the synthetic data set" in text and "seed 7, test split: 24 captions and 24 pictures as queries" in text
    )
    assert "Gains over zero-shot: T2I mAP +2.00; not established: T2I R1." in text
    assert "| HPL, trained | 50.00 (44.4-55.5) |" in text and "[The report](../reports/README.md)" in text


def test_another_profile_leaves_the_pages_alone(page: Path, params: Params) -> None:
    before = page.read_bytes()
    write_headline(page.parents[1] / "reports", [page], measured(), baselines(), params.model_copy(update={"profile": "own"}))
    write_main_table(ROOT / "reports" / "ablation", [page], "own")
    assert page.read_bytes() == before


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_say_what_the_committed_reports_say(name: str, tmp_path: Path, params: Params) -> None:
    text = (ROOT / name).read_text()
    assert text.count(START) == text.count("<!-- ablation: written by the ablation_report stage -->") == 1
    page = tmp_path / name
    page.parent.mkdir(exist_ok=True)
    page.write_text(text)
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    figures = [json.loads((ROOT / "reports" / f"{kind}.json").read_text()) for kind in ("metrics", "baselines")]
    write_headline(tmp_path / "reports", [page], *figures, params)
    write_main_table(tmp_path / "reports" / "ablation", [page], params.profile)
    assert page.read_text() == text


def test_the_main_table_of_the_ablation_says_which_differences_are_established(page: Path) -> None:
    page.write_text("<!-- ablation: written by the ablation_report stage -->\n<!-- end of ablation -->\n")
    write_main_table(ROOT / "reports" / "ablation", [page], "bundled")
    lines = page.read_text().splitlines()
    assert (
        lines[1] == "| row | seeds | T2I R1 | T2I mAP | I2I R1 | I2I mAP |"
        and len([line for line in lines if line[0:1] == "|"]) == 8
    )
    assert [line.partition(":")[0] for line in lines if line.startswith("- ")] == [
        "- Against baseline, + TRT",
        "- Against + TRT, + HPL",
        "- Against + HPL, + CMPR",
        "- Against baseline, T2I alone",
        "- Against baseline, I2I alone",
        "- Against baseline, + CMPR",
    ]


def test_a_sign_is_established_where_the_interval_leaves_zero_out() -> None:
    found = {"a": (1.0, (0.5, 1.5)), "b": (-1.0, (-2.0, 0.0)), "c": (-1.0, (-2.0, -0.1)), "d": (3.0, None)}
    assert established(found) == "a +1.00, c \u22121.00; not established: b, d"
    assert established({"a": found["a"]}) == "a +1.00" and established({"d": found["d"]}) == "not established: d"


def test_r_sum_is_of_the_task_whose_papers_print_it() -> None:
    assert [*figure_labels(T2I)] == [*figure_labels(I2I), "rsum"]


def test_the_paths_of_the_commands_are_those_of_the_pipeline() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    listed = [out for stage in stages for kind in ("outs", "metrics") for out in stage.get(kind, []) if isinstance(out, dict)]
    assert {METRICS, FIGURES_FOLDER} <= {path for out in listed for path in out} and (ROOT / PARAMS).is_file()
