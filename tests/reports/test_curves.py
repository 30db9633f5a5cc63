"""The curves of a training whose epochs hold a diagnosis beside the losses."""

from pathlib import Path

import pandas as pd
import pytest

from hpl.reports import page
from hpl.training.diagnosis import FIGURES
from hpl.training.model import LOSSES


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    columns = ["epoch", *LOSSES, "total", *FIGURES, "lr"]
    for name in page._CURVES.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([[float(n)] * len(columns) for n in (1, 2)], columns=columns).to_csv(tmp_path / name, index=False)
    return tmp_path


def test_losses_are_drawn_without_the_diagnosis(curves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(page, "draw_curves", lambda title, table, *_, **__: drawn.append(list(table)))
    page._curves(curves, curves)
    assert drawn == [["epoch", *LOSSES, "total"]] * len(page._CURVES)


def test_their_figures_are_drawn(curves: Path) -> None:
    page._curves(curves, curves)
    assert len(list(curves.glob("curves_*.png"))) == len(page._CURVES)
