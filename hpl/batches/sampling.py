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
