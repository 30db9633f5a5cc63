"""Which epoch of stage II is the model: the last, or the best on the validation split; and when to stop early."""

import math
from collections.abc import Iterable

from torch import Tensor

from hpl.training.model import HPL


class Best:
    """The best epoch so far by the mean validation mAP of the trained tasks, a part of the checkpoint."""

    def __init__(self, selection: str, patience: int, tasks: Iterable[str]) -> None:
        """Take how to choose.

        Args:
            selection: last | best.
            patience: epochs without a better one, up to the last that was measured, after which training stops; 0: never.
            tasks: those that are trained.
        """
        self.selection, self.patience, self.tasks = selection, patience, list(tasks)
        self.score, self.epoch, self.measured = -math.inf, 0, 0
        self.weights: dict[str, Tensor] | None = None

    def offer(self, epoch: int, figures: dict[str, float], model: HPL) -> None:
        """Take over the epoch if it is the best; of equals the first stays. Its weights are kept where they will be asked for."""
        own = [figures[task] for task in self.tasks if task in figures]
        score = sum(own) / len(own) if own else -math.inf
        self.measured = epoch
        if score > self.score:
            self.score, self.epoch = score, epoch
            if self.selection == "best":
                self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def waited_enough(self) -> bool:
        """Tell whether training stops here. Epochs that were not measured say nothing, so it stops after a measurement alone."""
        return bool(self.patience and self.epoch and self.measured - self.epoch >= self.patience)

    def restore(self, model: HPL) -> HPL:
        """Return the model with the chosen epoch's weights."""
        if self.weights is not None:
            model.load_state_dict(self.weights)
        return model

    def account(self, last_epoch: int) -> dict:
        """Describe the choice: the rule, the epoch it chose, and the best validated one with its figure in percent."""
        account = {"rule": self.selection, "epoch": self.epoch if self.weights is not None else last_epoch}
        if self.epoch:
            account |= {"best_validated_epoch": self.epoch, "mean_validation_mAP": round(self.score, 2)}
        return account

    def state_dict(self) -> dict:
        """Hand out what a checkpoint keeps."""
        return {"score": self.score, "epoch": self.epoch, "measured": self.measured, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.score, self.epoch, self.measured, self.weights = (state[key] for key in ("score", "epoch", "measured", "weights"))
