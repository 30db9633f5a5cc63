"""A killed run goes on where it was: the state of long loops, kept outside the pipeline's outputs until the stage has succeeded.

State lies in `.resume/<stage>/<key>/`, where the key is a hash of parameters, code and inputs, so state of another experiment or
of older code is never taken up. Every file is written beside its place and renamed, so half a file never counts; it ends in the
hash of what stands before, and one whose hash is wrong is named and computed anew.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from pydantic import BaseModel

from hpl.files import HplError
from hpl.runtime.distributed import check_agreement, rank
from hpl.runtime.provenance import loaded_modules

_BLOCK = 1 << 24  # bytes read at a time
_SEAL = hashlib.sha256().digest_size  # bytes of the hash that a kept file ends in


class Stateful(Protocol):
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict, /) -> Any: ...


def work_key(inputs: Iterable[Path], *parameters: object) -> str:
    """Hash what a stage's outputs depend on: its parameters, all files of its inputs, its hpl modules, torch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    content = [value.model_dump() if isinstance(value, BaseModel) else value for value in parameters]
    digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    files = [Path(name) for name in loaded_modules()]
    for path in inputs:
        files += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in sorted(set(files)):
        digest.update(f"\0{file.name}\0".encode())
        with open(file, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]


class Checkpoint:
    """The kept state of one run of one stage; a context manager that holds a lock and, if its body succeeds, deletes the state.

    Of several processes the first holds the lock, saves and deletes; all load, and each keeps the blocks that it computes.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        """`seconds` are the least time between two saves."""
        self.folder, self.seconds = Path(folder), seconds
        self.file = self.folder / "state.pt"
        self.saved, self.prefix = time.monotonic(), ""

    def __enter__(self) -> "Checkpoint":
        self.folder.mkdir(parents=True, exist_ok=True)
        if rank():
            check_agreement(str(self.folder), [])  # waits until the first is done here
            return self
        self.lock = open(self.folder / "lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise HplError(f"{self.folder}: the same run is going on in another process; stop that one or wait for it") from None
        for file in self.folder.glob("*.partial"):
            file.unlink()
        check_agreement(str(self.folder), [])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if rank():
            return
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()

    def load(self, **objects: Stateful) -> tuple[int, int]:
        """Bring the objects to the last saved state. Returns epoch and steps done in it; (1, 0) if nothing was saved."""
        state = torch.load(self.file, map_location="cpu", weights_only=True) if _is_whole(self.file) else None
        check_agreement(str(self.file), [torch.tensor([state["epoch"], state["step"]] if state else [1, 0])])
        if state is None:
            return 1, 0
        for name, each in objects.items():
            each.load_state_dict(state[name])
        if not rank():
            print(f"going on from {self.file}: epoch {state['epoch']}, step {state['step']}", file=sys.stderr)
        return state["epoch"], state["step"]

    def save(self, epoch: int, step: int, **objects: Stateful) -> None:
        """Keep the state after `step` steps of an epoch, if it is time."""
        if not rank() and time.monotonic() - self.saved >= self.seconds:
            state = {"epoch": epoch, "step": step, **{name: each.state_dict() for name, each in objects.items()}}
            self._write(self.file, lambda file: torch.save(state, file))
            self.saved = time.monotonic()

    def block(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Compute an array once, and keep it under its name."""
        file = self.folder / f"{self.prefix}{name}.npy"
        if _is_whole(file):
            return np.load(file, allow_pickle=False)
        array = compute()
        self._write(file, lambda partial: np.save(partial, array))
        return array

    def within(self, name: str) -> "Checkpoint":
        """Copy the checkpoint, with `name` before the names of its blocks."""
        inner = copy(self)
        inner.prefix = f"{self.prefix}{name}-"
        return inner

    def _write(self, file: Path, write: Callable[[Any], None]) -> None:
        partial = file.with_name(f"{file.name}.partial")
        try:
            with open(partial, "w+b") as stream:
                write(stream)
                stream.write(_digest_of(stream, stream.tell()))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, file)
        except (OSError, RuntimeError) as error:  # torch says "PytorchStreamWriter failed" where the disk is full
            partial.unlink(missing_ok=True)
            raise HplError(
                f"{file}: cannot be written ({error}); is the disk full? What was saved before is still there"
            ) from None


def _digest_of(stream: BinaryIO, size: int) -> bytes:
    """Hash the first `size` bytes of a file, and leave it there."""
    digest = hashlib.sha256()
    stream.seek(0)
    while block := stream.read(min(_BLOCK, size - stream.tell())):
        digest.update(block)
    return digest.digest()


def _is_whole(file: Path) -> bool:
    """Tell whether a file was kept; one that is not as it was written is named, and counts as none."""
    if not file.is_file():
        return False
    size = file.stat().st_size - _SEAL
    with open(file, "rb") as stream:
        if size >= 0 and _digest_of(stream, size) == stream.read():
            return True
    print(f"{file}: damaged, so not used: what it kept is computed anew", file=sys.stderr)
    return False


class NothingKept(Checkpoint):
    """Stands in where a run need not survive."""

    def __init__(self) -> None:
        self.prefix = ""

    def load(self, **objects: Stateful) -> tuple[int, int]:
        return 1, 0

    def save(self, epoch: int, step: int, **objects: Stateful) -> None: ...

    def block(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        return compute()


NOTHING_KEPT = NothingKept()
