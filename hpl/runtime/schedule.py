"""Learning rates as functions of time."""

import math


def warmup_cosine(epoch: float, epochs: float, warmup_epochs: float, start: float, peak: float) -> float:
    """Linear from `start` to `peak` over the warm-up, then half a cosine to zero at `epochs`.

    Args:
        epoch: time since the start, in epochs; a fraction counts steps.
    """
    if epoch < warmup_epochs:
        return start + (peak - start) * epoch / warmup_epochs
    if epochs <= warmup_epochs:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))
