"""Where the arithmetic runs, and that it runs the same way twice."""

import torch

from hpl.files import HplError


def prepare_device(device: str, num_threads: int, seed: int) -> torch.device:
    """Resolve `auto`, set the CPU threads, ask for deterministic kernels and seed torch. HplError if there is no such device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            raise HplError(f"device = {device!r}: torch sees {count} CUDA devices; expected auto, cpu or a device that exists")
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(seed)
    return torch.device(device)
