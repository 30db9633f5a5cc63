"""Where the arithmetic runs, and that it runs the same way twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpl.files import HplError
from hpl.runtime.distributed import local_rank, world_size


def prepare_device(device: str, num_threads: int, seed: int) -> torch.device:
    """Resolve `auto`, set the CPU threads, ask for deterministic kernels and seed torch. HplError if there is no such device.

    Each of several processes has the GPU of its own number, which torch then calls `cuda` there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            raise HplError(f"device = {device!r}: torch sees {count} CUDA devices; expected auto, cpu or a device that exists")
        if world_size() > 1:
            if ":" in device:
                raise HplError(f"device = {device!r} with {world_size()} processes; expected auto or cuda: each takes its own")
            if local_rank() >= count:
                raise HplError(f"process {local_rank()} of this machine finds {count} CUDA devices; expected one a process")
            torch.cuda.set_device(local_rank())
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # All that is read was written first: a pass saved. (torch puts the property in place where mypy does not see it.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    return torch.device(device)


@contextmanager
def out_of_memory(remedy: str) -> Iterator[None]:
    """Say that a GPU's memory is too small as HplError, with what the user can do about it; also a decorator."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = str(error).partition(". ")[2].partition(". ")[0]
        raise HplError(f"out of GPU memory ({asked or error}); {remedy}") from None
