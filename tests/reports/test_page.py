"""The result table, and pictures with the same bytes for the same content."""

from pathlib import Path

import pandas as pd
from PIL import Image

from hpl.reports.figures import draw_curves, draw_rank_lists
from hpl.reports.page import others_table, result_table
from tests.conftest import picture, save


def figures(value: float) -> dict[str, float]:
    return {name: value for name in ("rank1", "rank5", "rank10", "mAP", "mINP")}


def test_the_table_has_both_tasks_and_a_dash_for_what_was_not_measured() -> None:
    table = result_table(
        {"t2i": figures(50.0), "i2i": figures(60.25)},
        {
            "zero_shot": {"t2i": figures(40.0), "i2i": figures(41.0)},
            "colour_histogram": {"i2i": figures(9.5)},
            "colour_histogram_middle": {"i2i": figures(19.5)},
        },
    )
    lines = table.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| HPL, trained |" + " 50.00 |" * 5 + " 60.25 |" * 5
    assert lines[4] == "| colour histogram |" + " - |" * 5 + " 9.50 |" * 5


def test_further_data_sets_have_a_table_of_their_own() -> None:
    both = {"t2i": figures(50.0), "i2i": figures(60.25)}
    assert others_table(both, {"zero_shot": both}) == ""
    more = {**both, "others": {"MSMT17": {"i2i": figures(30.0)}}}
    lines = others_table(more, {"zero_shot": {**both, "others": {"MSMT17": {"i2i": figures(10.0)}}}}).splitlines()
    assert lines[2] == "| MSMT17 |" + " - |" * 5 + " 30.00 |" * 5
    assert lines[3] == "| MSMT17, zero-shot |" + " - |" * 5 + " 10.00 |" * 5


def test_pictures_have_the_same_bytes_twice(tmp_path: Path) -> None:
    file = save(picture(0), tmp_path / "a.png")
    rows = [{"caption": "A man in a red coat walks past the shop.", "found": [(file, 0.5, True), (file, 0.25, False)]}]
    curves = {
        "train": pd.DataFrame({"epoch": [1, 2], "sdm": [2.0, 1.0], "total": [3.0, 2.0], "lr": [1e-5, 1e-6]}),
        "none": pd.DataFrame({"epoch": [0]}),
    }
    for number in (1, 2):
        draw_rank_lists(rows, 3, tmp_path / f"ranks{number}.png")
        draw_rank_lists([{"picture": file, "found": []}], 3, tmp_path / f"pictures{number}.png")
        draw_curves(curves, tmp_path / f"curves{number}.png")
    for name in ("ranks", "pictures", "curves"):
        assert (tmp_path / f"{name}1.png").read_bytes() == (tmp_path / f"{name}2.png").read_bytes()
        assert Image.open(tmp_path / f"{name}1.png").width > 300
