"""Which pictures and captions make up each step of an epoch. Random by (seed, epoch) alone, so a run can stop and go on.

Steps of an epoch: one pass over the captions if there are any, else over the pictures of the I2I set.
"""

import numpy as np
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions


def shuffled_batches(count: int, batch_size: int, seed: int, epoch: int, drop_last: bool) -> list[np.ndarray]:
    """Cut the indices 0..count-1, in random order, into batches; the remainder is a smaller batch or dropped."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    if drop_last and count >= batch_size:
        order = order[: count // batch_size * batch_size]
    return [order[start : start + batch_size] for start in range(0, count, batch_size) if start < len(order)]


def identity_batches(
    pids: np.ndarray, num_batches: int, batch_size: int, num_instances: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """`num_batches` batches of indices with `num_instances` pictures of each of batch_size / num_instances identities.

    Drawn by pytorch-metric-learning's MPerClassSampler. An identity with fewer pictures repeats some; where there are fewer
    identities than a batch wants, the batch is smaller.
    """
    num_people = min(batch_size // num_instances, len(np.unique(pids)))
    size = num_people * num_instances
    common_functions.NUMPY_RANDOM = np.random.RandomState(np.random.SeedSequence([seed, epoch, 1]).generate_state(1))
    sampler = MPerClassSampler(pids, num_instances, batch_size=size, length_before_new_iter=num_batches * size)
    order = np.fromiter(sampler, dtype=np.int64)
    return [order[start : start + size] for start in range(0, num_batches * size, size)]


def spread_batches(
    pids: np.ndarray, camids: np.ndarray, num_batches: int, batch_size: int, num_instances: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw as `identity_batches` does, but pass over all identities before one comes again, and take of each its cameras in turn.

    Source: fast-reid's identity sampler. An identity with fewer pictures repeats some.
    """
    rows_of = {pid: np.flatnonzero(pids == pid) for pid in np.unique(pids)}
    size = min(batch_size // num_instances, len(rows_of))
    people: list[int] = []
    batches = []
    for _ in range(num_batches):
        chosen, people = people[:size], people[size:]
        while len(chosen) < size:  # a new pass, first those that are not in the batch
            people = sorted(rng.permutation(list(rows_of)).tolist(), key=chosen.__contains__)
            taken = size - len(chosen)
            chosen, people = chosen + people[:taken], people[taken:]
        batches.append(np.concatenate([_spread(rows_of[pid], camids, num_instances, rng) for pid in chosen]))
    return batches


def _spread(rows: np.ndarray, camids: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Take `count` of the rows in random order, one of each camera before a second one of any."""
    rows = rng.permutation(rows)
    turn = [int((camids[rows[:place]] == camids[row]).sum()) for place, row in enumerate(rows)]
    return np.resize(rows[np.argsort(turn, kind="stable")], count)


def takes_part(step: int, pace: float) -> bool:
    """Tell whether a half whose `pace` is its share of the steps has a part in this one, counted from 0."""
    return int(round((step + 1) * pace, 9)) > int(round(step * pace, 9))
