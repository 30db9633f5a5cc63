"""Worker processes that send results through pipes, in the order of the tasks; a dead or stalled one ends the run with its cause.

No shared memory and no semaphore is needed, so a small /dev/shm (docker's 64 MB) does no harm. When the process that started them
dies, even by SIGKILL, the pipes close and the workers end.
"""

import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from hpl.files import HplError

STALL_SECONDS = 45.0  # without a result and without using the processor, after which a process counts as stalled
_LOOK_SECONDS = 1.0  # between two looks at a process
_TASKS_AHEAD = 2  # tasks that a worker has, the one in work included
_STATES = {"T": "stopped by a signal", "D": "waiting for a disk or network drive", "S": "waiting for something that never comes"}

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Idle:
    """How long a process has not used the processor; looks, not a clock, so a pause of the whole run counts for nothing."""

    def __init__(self, pid: int) -> None:
        self.pid, self.seconds, self.used = pid, 0.0, ""

    def look(self, seconds: float) -> float:
        """Look again, `seconds` after the last time. Returns seconds of idleness; 0 where the system does not tell."""
        used = _processor_time(self.pid)
        self.seconds = self.seconds + seconds if used and used == self.used else 0.0
        self.used = used
        return self.seconds

    def state(self) -> str:
        """Return the letter of /proc: R running, S sleeping, D in a device, T stopped, Z dead; "" where there is none."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][:1]
        except OSError:
            return ""

    def state_in_words(self) -> str:
        return _STATES.get(self.state(), "doing nothing")


def _processor_time(pid: int) -> str:
    """Return the nanoseconds of a process's main thread, which does the work; others, as gloo's, wake up for nothing."""
    try:
        return Path(f"/proc/{pid}/schedstat").read_text().split()[0]
    except (OSError, IndexError):
        return ""


@dataclass(frozen=True)
class Duty:
    """What messages say of some workers: what one does, and the parameter that says how many there are."""

    does: str
    parameter: str


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    duty: Duty

    def send(self, task: object) -> None:
        try:
            self.connection.send(task)
        except OSError:
            raise self._ended() from None

    def result(self) -> Any:
        """Receive the oldest result. HplError if the worker died, stalled or says so itself."""
        idle = Idle(self.process.pid or 0)
        try:
            while not self.connection.poll(_LOOK_SECONDS):
                if idle.look(_LOOK_SECONDS) >= STALL_SECONDS:
                    raise HplError(
                        f"a process that {self.duty.does} has done nothing for {STALL_SECONDS:g} s: {idle.state_in_words()}; "
                        f"is the storage reachable? {self.duty.parameter} says how many there are. Run the same command again"
                    )
            good, value = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._ended() from None
        if not good:
            raise value
        return value

    def _ended(self) -> HplError:
        self.process.join(5)
        code = self.process.exitcode
        if code == -signal.SIGKILL:
            how = "was killed by SIGKILL, perhaps for want of memory"
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        return HplError(
            f"a process that {self.duty.does} {how}; a lower {self.duty.parameter} needs less. Run the same command again"
        )


def in_order(
    function: Callable[[_Task], _Result], tasks: Iterable[_Task], num_workers: int, duty: Duty, method: str | None = None
) -> Iterator[_Result]:
    """Yield function(task) of each task in order, worked out by `num_workers` processes, each a task or two ahead.

    Args:
        function: goes to each worker once; with the method "spawn" it must be of a module. Its results are pickled: NumPy arrays
            rather than tensors.
        method: of multiprocessing, as "spawn"; None: the usual one.

    Raises:
        HplError, OSError: that `function` raised, or that say what became of a worker. Another exception: RuntimeError with its
            traceback.
    """
    context, tasks = multiprocessing.get_context(method), iter(tasks)
    workers: list[_Worker] = []
    asked: deque[_Worker] = deque()
    try:
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            forked = context.get_start_method() == "fork"
            inherited = [ours, *(worker.connection for worker in workers)] if forked else []
            process = context.Process(target=_serve, args=(function, theirs, inherited), daemon=True)  # type: ignore[attr-defined]
            process.start()
            theirs.close()
            workers.append(_Worker(process, ours, duty))
        for worker, task in zip(cycle(workers), islice(tasks, _TASKS_AHEAD * num_workers)):
            worker.send(task)
            asked.append(worker)
        while asked:
            worker = asked.popleft()
            result = worker.result()
            for task in islice(tasks, 1):
                worker.send(task)
                asked.append(worker)
            yield result
    finally:
        for worker in workers:
            worker.process.kill()  # not SIGTERM, which a stopped process does not notice
            worker.connection.close()
        for worker in workers:
            worker.process.join(5)


def _serve(function: Callable, connection: Connection, inherited: list[Connection]) -> None:
    for other in inherited:
        other.close()  # else no pipe would close with the process at its other end
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one says that it was interrupted
    try:
        while True:
            connection.send_bytes(_answer(function, connection.recv()))
    except (EOFError, OSError):
        return  # who asked is gone


def _answer(function: Callable, task: object) -> bytes:
    try:
        return pickle.dumps((True, function(task)), pickle.HIGHEST_PROTOCOL)
    except (HplError, OSError) as error:
        return pickle.dumps((False, error))
    except MemoryError:
        return pickle.dumps((False, HplError("a worker process ran out of memory; fewer of them need less")))
    except Exception:
        return pickle.dumps((False, RuntimeError(traceback.format_exc())))
