"""usage: python -m tests.support.fuzz COUNT SEED [--only TARGET] [--case N]: what was read, what was refused, what is wrong.

Each case has random numbers of its own, so that one alone can be tried again. Exit status 1 if anything was found: a traceback,
records that a second reader has otherwise, a file opened outside of the case's folder, a program started, a name of a pickle
looked up, more than 10 seconds, or more than 2 GB of memory.
"""

import argparse
import collections
import contextlib
import io
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch

from hpl.files import HplError, readable
from tests.support.fuzz.targets import TARGETS, Wrong
from tests.support.imports import ROOT

MEMORY, SECONDS = 2 << 30, 10
OPENS = {"open", "os.scandir", "os.listdir"}
NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class", "ctypes.dlopen"}
CODE = tuple(
    f"{Path(place).resolve()}" for place in (sys.prefix, sys.base_prefix, ROOT / "hpl", ROOT / "tests", ROOT / "params.yaml")
)


class Watch:
    """Notes, while a case runs, what is opened outside of `home` and what a data file never needs."""

    def __init__(self, home: Path) -> None:
        self.home, self.on, self.found = str(home.resolve()), False, []
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event in NEVER:
            self.found.append(f"{event} {arguments[:2]!r}"[:200])
        elif event in OPENS and isinstance(arguments[0], str | bytes | os.PathLike):
            if not os.path.isabs(arguments[0]) and shutil.__file__ == sys._getframe(1).f_code.co_filename:
                return  # rmtree names what is in a folder that it holds open
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith((self.home + "/", *CODE, "/proc/", "/sys/", "/dev/")) and path != self.home:
                self.found.append(f"{event} {path}")


def limit_memory() -> None:
    """Allow a gigabyte beyond what the libraries have reserved by now; of that a good gigabyte is in use."""
    reserved = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    limit = (int(reserved[1]) << 10) + MEMORY // 2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class TooLong(BaseException):
    """Raised by the alarm; no `except Exception` holds it up."""


def alarm(*_: object) -> None:
    raise TooLong


def try_case(case: object, rng: random.Random, watch: Watch) -> tuple[str, str]:
    """Returns read, refused or what is wrong, and a text."""
    watch.found.clear()
    signal.alarm(SECONDS)
    watch.on = True
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            case(rng)
        verdict, text = "read", ""
    except HplError as error:
        verdict, text = "refused", readable(error)
        if not text.replace("\n  ", "").isprintable():
            verdict = "unreadable message"
    except Wrong as error:
        verdict, text = "wrong records", str(error)
    except TooLong:
        verdict, text = "too long", f"over {SECONDS} s"
    except Exception:
        verdict, text = "traceback", traceback.format_exc()
    finally:
        watch.on = False
        signal.alarm(0)
    return ("opened outside", "; ".join(watch.found)) if watch.found else (verdict, text)


def _peak_memory() -> int:
    """Most bytes that this program held; getrusage would tell those of the process that started it, if these were more."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--only")
    parser.add_argument("--case", type=int)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, alarm)
    weights = {name: weight for name, (weight, _) in TARGETS.items() if options.only in (None, name)}
    table, found, began = collections.Counter(), [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        watch, cases = Watch(Path(temporary)), {}
        os.environ["DVC_ROOT"] = temporary
        for name in weights:
            (Path(temporary) / name).mkdir()
            with contextlib.redirect_stderr(io.StringIO()):
                cases[name] = TARGETS[name][1](Path(temporary) / name)
        limit_memory()
        for number in range(options.count) if options.case is None else [options.case]:
            rng = random.Random(f"{options.seed} {number}")
            name = rng.choices(list(weights), list(weights.values()))[0]
            verdict, text = try_case(cases[name], rng, watch)
            table[name, verdict] += 1
            if verdict not in ("read", "refused"):
                found.append((number, name, verdict, text))
            if options.verbose:
                print(number, name, verdict, text, file=sys.stderr)
            if options.case is not None:
                shutil.copytree(temporary, "/tmp/fuzz-case", dirs_exist_ok=True)
    for number, name, verdict, text in found:
        again = f"--only {name} " if options.only else ""
        print(f"case {number}, {name}: {verdict}: {text}\n  again: {again}--case {number}")
    for name in weights:
        counts = {verdict: table[key, verdict] for key, verdict in sorted(table) if key == name}
        print(f"{name}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    peak = _peak_memory()
    print(
        f"{sum(table.values())} inputs, seed {options.seed}: {len(found)} findings; {peak >> 20} MB; "
        f"{time.monotonic() - began:.0f} s"
    )
    return int(bool(found) or peak > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
