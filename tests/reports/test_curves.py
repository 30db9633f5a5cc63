"""The curves of a training whose epochs hold a diagnosis beside the losses."""

from pathlib import Path

import pandas as pd
import pytest

from hpl.reports import curves as drawing
from hpl.training.diagnosis import FIGURES
from hpl.training.model import LOSSES


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    columns = ["epoch", *LOSSES, "total", *FIGURES, "lr"]
    for name in drawing._CURVES.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([[float(n)] * len(columns) for n in (1, 2)], columns=columns).to_csv(tmp_path / name, index=False)
    return tmp_path


def test_losses_are_drawn_without_the_diagnosis(curves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(drawing, "draw_curves", lambda title, table, *_, **__: drawn.append(list(table)))
    drawing.curves_section(curves, curves)
    assert drawn == [["epoch", *LOSSES, "total"]] * len(drawing._CURVES)


def test_their_figures_are_drawn(curves: Path) -> None:
    drawing.curves_section(curves, curves)
    assert len(list(curves.glob("curves_*.png"))) == len(drawing._CURVES)


def test_the_diagnosis_is_drawn_where_it_was_measured(curves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(drawing, "draw_curves", lambda title, table, *_, **__: drawn.append(list(table)))
    (section,) = drawing.diagnosis_section(curves, curves)
    assert drawn[0] == ["epoch", *LOSSES] and len(drawn[1]) == 4 and len(section.blocks[1].pictures) == 2
    table = pd.read_csv(curves / "train.csv")
    table[[name for name in FIGURES if "cosine" in name]] = float("nan")
    table.to_csv(curves / "train.csv", index=False)
    (section,) = drawing.diagnosis_section(curves, curves)
    assert len(section.blocks[1].pictures) == 1
    table.drop(columns=FIGURES).to_csv(curves / "train.csv", index=False)
    assert drawing.diagnosis_section(curves, curves) == []
