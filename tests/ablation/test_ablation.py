"""The ablation's numbers against scipy and loops, its tables, what is missing, and the same bytes for the same content."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from hpl.ablation.page import sweep_text, table_text, write_ablation
from hpl.ablation.tables import (
    COMPARISONS,
    Difference,
    cells_of_other_parameters,
    deviation,
    further_rows,
    paired_difference,
    read_cells,
    sweep_frame,
    table_frame,
    values_of,
)
from hpl.config import Params, load_params
from hpl.files import HplError, write_json
from hpl.reports.content import html, latex, markdown
from tests.support.imports import ROOT
from tests.support.reported import write_cells

FILES = {f"{name}.{kind}" for name in ("table3", "table4", "figure1a", "figure3") for kind in ("csv", "md", "tex", "png", "svg")}


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def folder(tmp_path: Path, params: Params) -> Path:
    return write_cells(tmp_path / "cells", params.ablation)


def test_a_paired_difference_is_that_of_scipy_and_of_the_book() -> None:
    left, right = {0: 50.0, 1: 52.5, 2: 51.0, 7: 99.0}, {2: 50.5, 1: 51.0, 0: 50.5, 9: 1.0}
    found = paired_difference(left, right)
    test = stats.ttest_rel([50.0, 52.5, 51.0], [50.5, 51.0, 50.5])
    interval = test.confidence_interval(0.95)
    assert (found.mean, found.num_pairs) == (pytest.approx(0.5), 3)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, test.pvalue))
    half = (
        4.302652729911275 * 1.0 / math.sqrt(3)
    )  # t of 2 degrees of freedom at 97.5 %; the differences -0.5, 1.5, 0.5 deviate by 1
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_differences_without_spread_or_pairs() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 2.0}, {0: 1.5}) == Difference(0.5, 1)
    same = paired_difference({0: 50.3, 1: 51.3}, {0: 50.1, 1: 51.1})
    assert (same.low, same.high, same.p) == (same.mean, same.mean, None)
    assert deviation({0: 1.0}) is None and deviation({0: 1.0, 5: 3.0}) == pytest.approx(math.sqrt(2))


def test_the_table_has_every_row_with_mean_deviation_seeds_and_difference(folder: Path, params: Params) -> None:
    cells, missing = read_cells(folder, params.ablation)
    assert not missing and len(cells) == len(params.ablation.cells)
    frame = table_frame(COMPARISONS["table3"], cells)
    line = frame[(frame["row"] == "trt") & (frame["measure"] == "I2I mAP")].iloc[0]
    own = [cells["trt", seed]["metrics"]["i2i"]["mAP"] for seed in range(5)]
    above = [cells["baseline", seed]["metrics"]["i2i"]["mAP"] for seed in range(5)]
    assert (line["num_seeds"], line["difference_pairs"], line["reference"], line["paper"]) == (5, 5, "baseline", 88.98)
    assert (line["mean"], line["sd"]) == pytest.approx((np.mean(own), np.std(own, ddof=1)))
    assert line["difference_p"] == pytest.approx(stats.ttest_rel(own, above).pvalue)
    first = frame[frame["row"] == "baseline"]
    assert first["reference"].isna().all() and first["difference"].isna().all()
    text = table_text(frame, cells, COMPARISONS["table3"])
    lines = markdown(text).splitlines()[2:]
    assert len({line.count("|") for line in lines}) == 1
    assert [row[0] for row in text.rows][:5] == ["baseline", "the paper†", "+ TRT", "difference", "p"]
    assert text.rows[2][1:3] == ["5", "300"] and text.rows[2][6] == f"{np.mean(own):.2f} ± {np.std(own, ddof=1):.2f}"
    assert text.rows[5] == ["the paper†", "", "", "75.27", "70.80", "95.36", "88.98"]


def test_rows_are_compared_with_the_right_row() -> None:
    assert COMPARISONS["table3"].reference == {"baseline": None, "trt": "baseline", "hpl": "trt", "hpl_cmpr": "hpl"}
    assert COMPARISONS["table4"].reference == {"trt": None, "text_guided": "trt", "vision_guided": "trt", "hpl": "trt"}
    assert COMPARISONS["figure1a"].reference == {
        "baseline": None,
        "t2i_only": "baseline",
        "i2i_only": "baseline",
        "hpl_cmpr": "baseline",
    }
    assert not COMPARISONS["figure1a"].paper  # the paper prints no numbers of it
    assert {row for table in COMPARISONS.values() for row in table.labels} <= set(load_params(ROOT / "params.yaml").ablation.rows)


def test_a_sweep_has_its_default_in_order_and_only_the_seeds_of_sweeps(folder: Path, params: Params) -> None:
    cells, _ = read_cells(folder, params.ablation)
    frame = sweep_frame(params.ablation, params.loss, cells)
    align = frame[(frame["parameter"] == "loss.instance_align") & (frame["measure"] == "T2I R1")]
    assert align["value"].tolist() == [0.2, 0.3, 0.4, 0.5, 0.6] and align["row"].tolist()[2] == "hpl_cmpr"
    assert set(frame["num_seeds"]) == {1} and frame["sd"].isna().all()
    assert align["mean"].iloc[2] == cells["hpl_cmpr", 0]["metrics"]["t2i"]["rank1"]
    names = [row[0] for row in sweep_text(frame).rows]
    assert names[:2] == ["lambda1, loss.instance_align = 0.2", "difference"] and names.count("difference") == 8
    reg = frame[(frame["parameter"] == "loss.prompt_reg") & (frame["measure"] == "T2I R1")]
    assert reg["value"].tolist() == [0.04, 0.05, 0.06, 0.07, 0.08]


def test_what_is_missing_or_of_older_changes_is_listed_and_not_used(folder: Path, params: Params, tmp_path: Path) -> None:
    (folder / "trt-3.json").unlink()
    write_json(folder / "hpl-1.json", {"changes": {"loss.prompt_reg": 9}, "metrics": {}, "steps": 1})
    write_json(folder / "unlisted-0.json", {"changes": {}, "metrics": {}, "steps": 1})
    cells, missing = read_cells(folder, params.ablation)
    assert missing == ["trt, seed 3", "hpl, seed 1 (there is one of older changes: loss.prompt_reg: 9)"]
    assert sorted(values_of(cells, "trt", "T2I R1")) == [0, 1, 2, 4]
    hpl = table_frame(COMPARISONS["table3"], cells)
    assert set(hpl.loc[hpl["row"] == "hpl", "difference_pairs"]) == {3}
    write_ablation(tmp_path / "out", folder, params)
    for page in ("README.md", "index.html"):
        assert "trt, seed 3; hpl, seed 1 (there is" in (tmp_path / "out" / page).read_text().replace("\\", "")


def test_a_cell_of_other_parameters_is_listed_and_not_used(folder: Path, params: Params, tmp_path: Path) -> None:
    """By what DVC's lock file says of each cell; a changed weight, another profile, and a key that is gone."""
    now = {"profile": "b", "loss": {"margin": 0.3}, "profiles": {"a": {"train": {"epochs": 5}}, "b": {"train": {"epochs": 5}}}}
    same = {"loss": {"margin": 0.3}, "profiles.b.train": {"epochs": 5}}
    stages = {
        "ablate@trt-0": same,
        "ablate@trt-1": same | {"loss": {"margin": 0.5}},
        "sweep@reg_04-0": {"profiles.a.train": {"epochs": 5}},
        "ablate@hpl-2": same | {"gone": 1},
        "ablation_report": {"loss": {"margin": 9}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(now))
    lock = {"schema": "2.0", "stages": {name: {"params": {"params.yaml": values}} for name, values in stages.items()}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    others = cells_of_other_parameters(tmp_path / "dvc.lock", tmp_path / "params.yaml")
    assert others == {"trt-1", "reg_04-0", "hpl-2"}
    assert cells_of_other_parameters(tmp_path / "none", tmp_path / "params.yaml") == set()
    cells, missing = read_cells(folder, params.ablation, others)
    assert len(cells) == len(params.ablation.cells) - 3 and not {("trt", 1), ("hpl", 2)} & set(cells)
    assert "trt, seed 1 (there is one of other parameters)" in missing and len(missing) == 3


def test_what_is_on_and_rows_that_do_nothing_are_said(folder: Path, params: Params, tmp_path: Path) -> None:
    on = params.active.model_copy(update={"evaluate": params.active.evaluate.model_copy(update={"rerank": True})})
    rows = params.ablation.rows | {"idle": {"profiles.own.train.epochs": 1}}
    changed = params.model_copy(
        update={"profiles": {**params.profiles, "bundled": on}, "ablation": params.ablation.model_copy(update={"rows": rows})}
    )
    write_ablation(tmp_path / "out", folder, changed)
    page = (tmp_path / "out" / "README.md").read_text()
    assert "- Evaluated: re-ranked" in page and "nothing with the profile bundled: the row repeats the defaults" in page


def test_a_row_without_any_cell_is_a_dash_and_has_no_difference(folder: Path, params: Params, tmp_path: Path) -> None:
    for file in folder.glob("trt-*.json"):
        file.unlink()
    write_ablation(tmp_path / "out", folder, params)
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| + TRT | 0 | - | - | - | - | - |\n| the paper† |" in page
    assert "nan" not in page


def test_files_that_are_no_cells(folder: Path, params: Params, tmp_path: Path) -> None:
    with pytest.raises(HplError, match="none of the 48 cells of params.yaml is there; run `make ablation`"):
        write_ablation(tmp_path / "out", tmp_path, params)
    write_json(folder / "trt-3.json", {"metrics": {}})
    with pytest.raises(HplError, match="trt-3.json: expected a cell with changes, metrics and steps"):
        read_cells(folder, params.ablation)
    (folder / "trt-3.json").write_text("{")
    with pytest.raises(HplError, match="trt-3.json: line 1"):
        read_cells(folder, params.ablation)


def test_rows_of_ones_own_stand_in_a_table_of_their_own(params: Params) -> None:
    assert further_rows(params.ablation) is None
    more = params.ablation.model_copy(update={"rows": params.ablation.rows | {"mine": {"loss.triplet_margin": 0.5}}})
    assert further_rows(more).reference == {"hpl_cmpr": None, "mine": "hpl_cmpr"}


def test_two_writings_have_the_same_bytes(folder: Path, params: Params, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_ablation(tmp_path / name, folder, params)
    one = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    assert one == {file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()}
    assert set(one) == FILES | {"README.md", "index.html"}
    readme, page = one["README.md"].decode(), one["index.html"].decode()
    assert all(target in one for target in re.findall(r"\]\(([^)]+)\)", readme))
    assert set(re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', page)) == FILES - {name for name in FILES if name.endswith("png")}
    assert page.count("<img ") == page.count('alt="Table') + page.count('alt="Figure') == 4
    assert "synthetic" in readme and "Missing" not in readme
    assert one["table3.md"].decode().strip() in readme
    rows = list(csv.DictReader(one["table4.csv"].decode().splitlines()))
    assert len(rows) == 16 and {row["paper"] for row in rows if row["measure"] == "T2I mAP"} == {""}


def test_latex_is_a_tabular_whose_lines_fit_its_columns(folder: Path, params: Params) -> None:
    cells, _ = read_cells(folder, params.ablation)
    for table in COMPARISONS.values():
        text = table_text(table_frame(table, cells), cells, table)
        lines = latex(text).splitlines()
        assert lines[0] == r"\begin{tabular}{@{}lrrrrrr@{}}" and lines[-1] == r"\end{tabular}"
        assert [line for line in lines if line.startswith("\\")][1:-1] == [r"\toprule", r"\midrule", r"\bottomrule"]
        assert {line.count("&") for line in lines if line.endswith(r"\\")} == {6}
        assert latex(text).isascii()
        shown = html(text)
        assert shown.count("<td>") == 6 * len(text.rows) and shown.count('<th scope="row"') == len(text.rows)
        assert shown.count('class="minor"') == sum(row[0] in ("difference", "p", "the paper†") for row in text.rows) > 0
