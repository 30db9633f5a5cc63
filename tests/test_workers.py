"""Worker processes: results in order, one line for each way to die or stall, and nothing that needs shared memory."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpl import workers
from hpl.files import HplError
from hpl.workers import Duty, Idle, in_order
from tests.support.imports import ROOT

DUTY = Duty("counts", "num_workers")


def square(task: int | str) -> int:
    """Square a number, or do to this process what a word says."""
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif task == "exit":
        os._exit(3)
    elif task == "mistake":
        raise HplError("picture.jpg: not a picture")
    elif task == "full":
        raise OSError(28, "No space left on device", "picture.jpg")
    elif task == "bug":
        raise ValueError("this should not happen")
    elif task == "hungry":
        raise MemoryError
    return task**2


def slow(seconds: float) -> float:
    """Use the processor, as long as no result is due."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_results_come_in_the_order_of_the_tasks(num_workers: int, count: int) -> None:
    assert list(in_order(square, range(count), num_workers, DUTY)) == [number**2 for number in range(count)]


def test_a_result_is_larger_than_a_pipe_holds() -> None:
    found = list(in_order(bytes, [3_000_000] * 5, 2, DUTY))
    assert [len(each) for each in found] == [3_000_000] * 5


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("killed", HplError, "a process that counts was killed by SIGKILL, perhaps for want of memory; a lower num_workers"),
        ("exit", HplError, "a process that counts ended with code 3; a lower num_workers needs less. Run the same command again"),
        ("mistake", HplError, "^picture.jpg: not a picture$"),
        ("full", OSError, "No space left on device: 'picture.jpg'"),
        ("hungry", HplError, "a worker process ran out of memory; fewer of them need less"),
        ("bug", RuntimeError, "Traceback (.|\n)*ValueError: this should not happen"),
    ],
)
def test_a_worker_that_ends_is_one_line_with_its_cause(how: str, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        list(in_order(square, [1, how, 3, 4], 2, DUTY))


def test_a_stopped_worker_ends_the_run_and_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STALL_SECONDS", 2.0)
    start = time.monotonic()
    with pytest.raises(HplError, match="a process that counts has done nothing for 2 s: stopped by a signal; is the storage"):
        list(in_order(square, [1, "stopped", 3], 2, DUTY))
    assert time.monotonic() - start < 15
    assert not multiprocessing.active_children()


def test_a_slow_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STALL_SECONDS", 2.0)
    assert list(in_order(slow, [4.0], 1, DUTY)) == [4.0]


def test_a_run_that_is_stopped_and_continued_as_a_whole_counts_looks_and_no_clock() -> None:
    idle = Idle(os.getpid())
    idle.look(1.0)
    slow(0.05)
    assert idle.look(1.0) == 0 and Idle(0).look(1.0) == 0  # no such process: nothing is known of it


def test_whoever_stops_asking_leaves_no_worker() -> None:
    results = in_order(square, range(100), 2, DUTY)
    assert next(results) == 0
    results.close()
    assert not multiprocessing.active_children()


PARENT = """
import os, sys, time
from hpl.workers import Duty, in_order
results = in_order(len, iter(lambda: "x" * 10, None), 3, Duty("counts", "num_workers"), sys.argv[1])
if __name__ == "__main__":
    next(results)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, method: str) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), method]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    left = ["pgrep", "-f", str(tmp_path)]
    for _ in range(100):
        if not subprocess.run(left, capture_output=True).stdout:
            return
        time.sleep(0.1)
    pytest.fail("workers go on")


def in_small_shared_memory(*command: str) -> subprocess.CompletedProcess:
    """Run a command where /dev/shm is full; skips where that cannot be arranged."""
    full = "mount -t tmpfs -o size=1m tmpfs /dev/shm && { cat /dev/zero > /dev/shm/full 2>/dev/null; true; }"
    unshare = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, full], capture_output=True).returncode:
        pytest.skip("a mount namespace is not permitted here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*unshare, f'{full} && exec "$@"', "sh", *command], env=environment, capture_output=True, text=True, timeout=170
    )


LOADER = """
import sys
import numpy as np, pandas as pd, torch
from pathlib import Path
from hpl.batches.loading import Step, StepDataset, load_steps
from hpl.runtime.distributed import gather_rows, rank, run_processes

class Pictures:
    def read(self, image_ids):
        return torch.full((len(image_ids), 3, 256, 128), 7, dtype=torch.uint8)

def main():
    steps = [Step(np.arange(32), np.arange(32), np.arange(32), n) for n in range(8)]
    data = StepDataset(Pictures(), pd.Series(["a man"] * 32), 77, steps, 2, 0.5)
    batches = list(load_steps(data, 2, torch.device("cpu")))
    together = gather_rows(torch.tensor([rank()]), [1, 1])
    if not rank():
        print(len(batches), tuple(batches[0].images_B3HW.shape), together.tolist(), flush=True)

if __name__ == "__main__":
    run_processes(main, 2)
"""


@pytest.mark.slow
def test_loaders_and_processes_need_no_shared_memory(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(LOADER)
    done = in_small_shared_memory(sys.executable, str(tmp_path / "loader.py"))
    assert (done.returncode, done.stdout) == (0, "8 (16, 3, 256, 128) [0, 1]\n"), done.stderr[-3000:]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_pools_need_no_shared_memory() -> None:
    code = "from hpl.workers import *\n"
    code += "if __name__ == '__main__': print(list(in_order(abs, range(-3, 0), 2, Duty('counts', 'n'), 'spawn')))"
    done = in_small_shared_memory(sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (0, "[3, 2, 1]\n"), done.stderr[-3000:]
