"""Several processes as one: who takes which rows, how features and gradients come together, and how the processes start and end.

Without a process group there is one process, and every function here hands back what it was given.

Why gradients are those of one process. Each of W processes runs the towers over its own rows; `gather_shares` puts the features
of all rows before every process, which computes the losses of the whole batch. Its backward keeps the gradient of the own rows
and multiplies it by W; `average_gradients` then takes the mean over processes. For a parameter with the gradient `own_r` through
process r's rows and `direct` through what all compute alike (classifiers, neck, logit scale) that is
mean_r(W * own_r + direct) = sum_r own_r + direct, the gradient of the whole batch, whichever way or ways a parameter takes part.
Cost: the losses are computed W times over, which is little beside the towers; and the mean is one all-reduce after the backward,
not hidden behind it.
"""

import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpl.files import HplError
from hpl.workers import STALL_SECONDS, Idle

TIMEOUT = timedelta(minutes=30)  # a process that waits longer for the others ends the run; the first may be computing metrics
_BUCKET = 1 << 24  # numbers in one all-reduce
TOLD_LIMIT = 20_000  # characters kept of a traceback
_LOOK_SECONDS = 1.0  # between two looks at the processes
_TOLD = "told"  # in the store that all share: how many processes said last words, and these by their number
_LOST = re.compile("gloo|NCCL|Connection (closed|reset)|Broken pipe")  # of an error: another process is gone
_NCCL_SHARED = 64 << 20  # bytes of /dev/shm that NCCL may want for a process
LAUNCHER = "HPL_LAUNCHER"  # environment variable: the command that starts a stage on several machines


def rank() -> int:
    """Return the number of this process, from 0. The first one writes outputs."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Return the number of this process on its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))) if world_size() > 1 else 0


def share(count: int, number: int, processes: int) -> slice:
    """Choose the rows of `count` that process `number` takes: contiguous, in order, as many as another takes or one more."""
    return slice(count * number // processes, count * (number + 1) // processes)


def gather_rows(own: Tensor, counts: list[int]) -> Tensor:
    """Put the counts[r] rows of each process r, which may be none, one after the other on every process, without gradients."""
    if world_size() == 1:
        return own
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own
    sent = padded.flatten().view(torch.uint8)  # bytes: any dtype, on any backend
    received = [torch.empty_like(sent) for _ in counts]
    dist.all_gather(received, sent)
    return torch.cat([rows.view(own.dtype).view(padded.shape)[:count] for rows, count in zip(received, counts, strict=True)])


def gather_shares(own: Tensor, *counts: int) -> Tensor:
    """Put the rows of the whole batch on every process, in the batch's order, with gradients for `average_gradients`.

    Args:
        own: rows of this process: its share of each kind, one kind after the other.
        counts: rows of each kind in the whole, as captioned pictures and others.
    """
    if world_size() == 1 or not sum(counts):
        return own
    return _GatherShares.apply(own, counts)


class _GatherShares(torch.autograd.Function):
    @staticmethod
    def forward(ctx, own: Tensor, counts: tuple[int, ...]) -> Tensor:
        rows = [share_of_rows(counts, number, world_size()) for number in range(world_size())]
        ctx.own_rows = rows[rank()].to(own.device)
        return gather_rows(own, [len(each) for each in rows])[torch.cat(rows).argsort().to(own.device)]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.own_rows] * world_size(), None


def share_of_rows(counts: Iterable[int], number: int, processes: int) -> Tensor:
    """Choose the rows of the whole batch that a process takes: its share of each kind, of which there are so many. int64."""
    rows, start = [], 0
    for count in counts:
        own = share(count, number, processes)
        rows.append(torch.arange(start + own.start, start + own.stop))
        start += count
    return torch.cat(rows)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, the same bits on all of them."""
    average([parameter.grad for parameter in parameters if parameter.grad is not None])


@torch.no_grad()
def average(gradients: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place."""
    if world_size() == 1:
        return
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, mean in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket, size = list[Tensor](), 0
    for gradient in gradients:
        if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket


def check_agreement(what: str, tensors: Iterable[Tensor]) -> None:
    """HplError where the processes do not hold the same bits, in float32 or int64. Waits for all of them."""
    if world_size() == 1:
        return
    sums = [torch.zeros((), dtype=torch.int64)]
    sums += [tensor.detach().flatten().view(torch.int32).sum(dtype=torch.int64).cpu() for tensor in tensors]
    own = torch.stack(sums)[None]
    if (gather_rows(own, [1] * world_size()) != own).any():
        raise HplError(f"{what}: the {world_size()} processes differ; expected the same files, code and kind of device for all")


def run_processes(main: Callable[[], None], num_processes: int) -> None:
    """Run the body of a stage in `num_processes` processes that know each other; in this one if that is 1.

    A process that torchrun started joins the others. Else this one starts them on this machine, or hands the stage to the command
    in HPL_LAUNCHER. It ends when all have ended; as soon as one fails it stops the others and raises HplError, which says what
    failed. That one line is why it is not torch's elastic_launch, which finds the first failure too but prints its log around it.

    Args:
        main: a function of a module, for it is found again by name in new processes.
    """
    joins = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    if joins and int(os.environ["WORLD_SIZE"]) != num_processes:
        raise HplError(f"num_processes = {num_processes}; expected {os.environ['WORLD_SIZE']}, as many as were started")
    if num_processes == 1:
        main()
    elif joins:
        _run(main, _say)
    elif command := os.environ.get(LAUNCHER):
        code = subprocess.run([*shlex.split(command), *sys.argv]).returncode
        if code:
            raise HplError(f"{LAUNCHER} ended with code {code}; what its processes said stands above")
    else:
        _start(main, num_processes)


def _run(main: Callable[[], None], tell: Callable[[str], None], **group: Any) -> None:
    """Run one process of a group; whatever goes wrong ends it at once, without waiting for communication that cannot end."""
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT, **group)
        if torch.cuda.is_available():
            _spare_shared_memory()  # NCCL starts with the first tensor that is sent
        main()
    except BaseException as error:
        known = isinstance(error, HplError | OSError)
        tell(f"error: {error}" if known else traceback.format_exc()[-TOLD_LIMIT:])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    dist.destroy_process_group()


def _of_others(message: str) -> bool:
    """Tell whether a traceback is of a process that only lost another."""
    return _LOST.search(message.strip().splitlines()[-1]) is not None


def _say(message: str) -> None:
    lost = not message.startswith("error: ") and _of_others(message)
    print("error: another process of this run has gone; what it said stands above" if lost else message, file=sys.stderr)


def _spare_shared_memory() -> None:
    """Have NCCL do without /dev/shm where that is small: it dies of it with "unhandled system error"."""
    try:
        shared = os.statvfs("/dev/shm")
    except OSError:
        return
    free, here = shared.f_bavail * shared.f_frsize, int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    if free < here * _NCCL_SHARED and "NCCL_SHM_DISABLE" not in os.environ:
        os.environ["NCCL_SHM_DISABLE"] = "1"
        if not local_rank():
            print(
                f"/dev/shm has {free >> 20} MB free, and {here} processes may want {here * _NCCL_SHARED >> 20}: NCCL does "
                "without (NCCL_SHM_DISABLE=1), perhaps more slowly; docker run --shm-size=1g gives more",
                file=sys.stderr,
            )


def _start(main: Callable[[], None], num_processes: int) -> None:
    """Start the processes on this machine and watch over them."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    arguments = [(number, main, num_processes, store.port) for number in range(num_processes)]
    processes = [context.Process(target=_process, args=each) for each in arguments]
    try:
        for process in processes:
            process.start()
        idle = {number: Idle(process.pid or 0) for number, process in enumerate(processes)}
        while running := [number for number, process in enumerate(processes) if process.exitcode is None]:
            ended = wait([processes[number].sentinel for number in running], _LOOK_SECONDS)
            codes = [process.exitcode for process in processes]
            if any(codes):
                raise HplError(_what_failed(codes, store))
            if not ended:
                _refuse_stall({number: idle[number] for number in running}, num_processes)
    finally:  # also where this process is interrupted
        for process in processes:
            if process.pid:
                process.kill()  # not SIGTERM, which a stopped process does not notice
                process.join(5)


def _refuse_stall(idle: dict[int, Idle], num_processes: int) -> None:
    """Look again at the processes that run, a second after the last time. HplError if they do not go on.

    One that waits for the others is idle too, so one counts that is stopped, or all that are. A GPU's wait uses the processor.
    """
    stalled = [number for number, each in idle.items() if each.look(_LOOK_SECONDS) >= STALL_SECONDS]
    stopped = [number for number in stalled if idle[number].state() == "T"]
    if stopped or len(stalled) == len(idle):
        number = (stopped or stalled)[0]
        raise HplError(
            f"process {number} of {num_processes} has done nothing for {STALL_SECONDS:g} s: {idle[number].state_in_words()}; "
            "the others were stopped. Run the same command again"
        )


def _process(number: int, main: Callable[[], None], num_processes: int, port: int) -> None:
    os.environ["LOCAL_RANK"] = str(number)
    multiprocessing.set_start_method(None, force=True)  # a spawned process would spawn its loader's workers too, seconds for each
    Thread(target=_end_with_parent, daemon=True).start()
    store = dist.TCPStore("127.0.0.1", port)

    def tell(message: str) -> None:
        store.set(f"{_TOLD} {store.add(_TOLD, 1)}", f"{number} {message}")

    _run(main, tell, store=store, rank=number, world_size=num_processes)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _what_failed(codes: list[int | None], store: dist.TCPStore) -> str:
    """Name the cause, not its consequences: when a process dies, those that wait for it fail as well."""
    keys = [f"{_TOLD} {place}" for place in range(1, store.add(_TOLD, 0) + 1)]
    told = [store.get(key).decode().split(" ", 1) for key in keys if store.check([key])]
    for _, message in told:
        if message.startswith("error: "):
            return message.removeprefix("error: ")
    for number, code in enumerate(codes):
        if code not in (0, 1, None):
            end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            why = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
            return f"process {number} of {len(codes)} {end}{why}; the others were stopped"
    for teller, message in sorted(told, key=lambda entry: _of_others(entry[1])):
        print(message, file=sys.stderr)
        return f"process {teller} of {len(codes)} failed: {message.strip().splitlines()[-1]}; the others were stopped"
    first = next(number for number, code in enumerate(codes) if code)
    return f"process {first} of {len(codes)} ended with code {codes[first]}; the others were stopped"
