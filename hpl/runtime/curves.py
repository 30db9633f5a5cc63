"""Loss curves as a CSV that `dvc plots show` draws: a row an epoch, a column a loss, deterministic bytes."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from hpl.files import HplError, write_text


class Curves:
    """Mean of each loss over the epoch. Reading a loss every step costs a device synchronisation, so sums stay on the device."""

    def __init__(self, losses: list[str], measured: Sequence[str] = ()) -> None:
        """Take the columns, in order.

        Args:
            losses: one that is switched off stays zero, so that a plot of it finds its column.
            measured: what only some steps measure; empty where none did.
        """
        self.columns = dict.fromkeys(losses, 0.0) | dict.fromkeys(measured, math.nan)
        self.rows: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.steps = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of a step; `steps` counts those of all epochs."""
        self._sum(losses)
        self.steps += 1

    def note(self, figures: dict[str, float]) -> None:
        """Add what a step measured beside its losses; one that is not finite is left out."""
        self._sum({name: torch.tensor(value) for name, value in figures.items() if math.isfinite(value)})

    def _sum(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def end_epoch(self, epoch: int, **more: float) -> None:
        """Close the epoch with a row of its own."""
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.rows.append({"epoch": epoch, **self.columns, **means, **more})
        self.sums, self.counts = {}, {}

    def state_dict(self) -> dict:
        """Hand out what a checkpoint keeps."""
        return {"rows": self.rows, "sums": self.sums, "counts": self.counts, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.sums, self.counts, self.steps = state["rows"], state["sums"], state["counts"], state["steps"]

    def write(self, path: Path) -> None:
        """Write all epochs, with six significant digits."""
        write_text(path, pd.DataFrame(self.rows or [{"epoch": 0, **self.columns}]).to_csv(index=False, float_format="%.6g"))


def check_finite(losses: dict[str, Tensor], place: str) -> dict[str, float]:
    """Read the losses as numbers, in one transfer. HplError names each that is not finite; call it before the optimiser moves."""
    values = torch.stack([value.detach().double() for value in losses.values()]).tolist()
    numbers = dict(zip(losses, values, strict=True))
    bad = ", ".join(f"{name} = {value}" for name, value in numbers.items() if not math.isfinite(value))
    if bad:
        raise HplError(f"{place}: non-finite loss: {bad}; no step was taken. A lower learning rate, or amp: false, may help")
    return numbers
