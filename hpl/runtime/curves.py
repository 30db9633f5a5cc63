"""Loss curves as a CSV that `dvc plots show` draws: a row an epoch, a column a loss, deterministic bytes."""

import math
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from hpl.files import HplError, write_text


class Curves:
    """Mean of each loss over the epoch. Reading a loss every step costs a device synchronisation, so sums stay on the device."""

    def __init__(self, losses: list[str]) -> None:
        """`losses` are the columns, in order; one that is switched off stays zero, so that a plot of it finds its column."""
        self.losses = losses
        self.rows: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.steps = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of a step; `steps` counts those of all epochs."""
        for name, value in losses.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1
        self.steps += 1

    def end_epoch(self, epoch: int, **more: float) -> None:
        """Close the epoch with a row of its own."""
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.rows.append({"epoch": epoch, **dict.fromkeys(self.losses, 0.0), **means, **more})
        self.sums, self.count = {}, 0

    def state_dict(self) -> dict:
        """Hand out what a checkpoint keeps."""
        return {"rows": self.rows, "sums": self.sums, "count": self.count, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.sums, self.count, self.steps = state["rows"], state["sums"], state["count"], state["steps"]

    def write(self, path: Path) -> None:
        """Write all epochs, with six significant digits."""
        write_text(
            path,
            pd.DataFrame(self.rows or [{"epoch": 0, **dict.fromkeys(self.losses, 0.0)}]).to_csv(index=False, float_format="%.6g"),
        )


def check_finite(losses: dict[str, Tensor], place: str) -> dict[str, float]:
    """Read the losses as numbers, in one transfer. HplError names each that is not finite; call it before the optimiser moves."""
    values = torch.stack([value.detach().double() for value in losses.values()]).tolist()
    numbers = dict(zip(losses, values, strict=True))
    bad = ", ".join(f"{name} = {value}" for name, value in numbers.items() if not math.isfinite(value))
    if bad:
        raise HplError(f"{place}: non-finite loss: {bad}; no step was taken. A lower learning rate, or amp: false, may help")
    return numbers
