"""What `make soak` does: faults at random moments in a miniature pipeline, then the same command until it ends.

    python -m tests.support.soak --kills 100 --seconds 3600 --seed 0

A chain is one command, a stage by itself or `dvc repro` of it, that is killed some times by SIGKILL, either all its processes
or one of them (dvc, the stage, a rank, a worker), and then let be. Every stage runs as two ranks with a loader's worker each
where it can. After a chain the outputs must have the bytes of an undisturbed run, nothing may be left outside `.resume`, and no
process may live. Where mount namespaces are permitted, the project lies in a tmpfs, with a /dev/shm of its own, so that its disk
can be full or read-only.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from ruamel.yaml import YAML

from tests.support.imports import ROOT
from tests.support.pipeline import copy_project, run

MARK = "HPL_SOAK"
_INSIDE = "HPL_SOAK_INSIDE"
PATIENCE = 180.0  # seconds for a command that lost a process to end; the product's own limit is below a minute of idleness


@dataclass
class Account:
    """What was done and what went wrong, each fault in words."""

    commands: int = 0
    kills: int = 0
    victims: dict[str, int] = field(default_factory=dict)
    full_disks: int = 0
    read_only: int = 0
    clocks: int = 0
    at_once: int = 0
    skipped: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [*self.differing, *self.leftovers, *self.hangs, *self.tracebacks]


def prepare(folder: Path, processes: int, prepared: Path | None) -> None:
    """Make the project, with several processes, workers and a save at each step, and run it once; or copy one that was run."""
    if prepared:
        shutil.copytree(prepared, folder, symlinks=True, ignore=shutil.ignore_patterns(".resume"))
    else:
        folder.mkdir()
        copy_project(folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params.update(checkpoint_seconds=0, num_workers=2)
    if not prepared:
        params["num_processes"] = processes
        for section in ("pretrain", "train"):
            params["profiles"]["bundled"][section]["loader_workers"] = 1
    yaml.dump(params, folder / "params.yaml")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "soak")
    if not prepared:
        run(folder, "dvc", "repro", "-q")


class Soak:
    """A prepared project and what is done to it."""

    def __init__(self, project: Path, seed: int) -> None:
        self.project, self.random, self.account = project, random.Random(seed), Account()
        self.temporary = project.with_name("temporary")
        self.temporary.mkdir(exist_ok=True)
        self.mark = uuid.uuid4().hex
        stages = YAML(typ="safe").load(project / "dvc.yaml")["stages"]
        self.stages = {
            name: [sys.executable, *stage["cmd"].replace("${profile}", "bundled").split()[1:]] for name, stage in stages.items()
        }
        self.seconds: dict[str, float] = {}  # of a command that was let be
        self.files, self.shared = self.listing(), self.shared_memory()

    def listing(self) -> dict[str, str]:
        """Hash of each file that is neither kept work, nor git's, nor DVC's own."""
        found = {}
        for path in sorted(self.project.rglob("*")):
            name = str(path.relative_to(self.project))
            if name.startswith((".resume", ".git/", ".dvc/")) or "__pycache__" in name or path.is_dir():
                continue
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def shared_memory(self) -> set[str]:
        return set(os.listdir("/dev/shm"))

    def processes(self) -> dict[int, str]:
        """Living processes of this soak: number -> command line."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    if (entry / "stat").read_text().rpartition(") ")[2][0] != "Z":
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def start(self, command: list[str]) -> tuple[subprocess.Popen, IO[str]]:
        self.account.commands += 1
        log = tempfile.TemporaryFile("w+")  # not on the disk that is filled, or a message could not be written
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.project),
            "TMPDIR": str(self.temporary),
            "DVC_NO_ANALYTICS": "1",
            MARK: self.mark,
        }
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        return subprocess.Popen(command, cwd=self.project, env=environment, start_new_session=True, **streams), log

    def end(self, process: subprocess.Popen, log: IO[str], what: str, loud: bool = True) -> tuple[int, str]:
        """Wait for a command; one that does not end is a hang. A failure without one line that says why is a fault if `loud`."""
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.account.hangs.append(f"{what}: {list(self.processes().values())}")
            self.kill_all()
            process.wait()
        log.seek(0)
        output = log.read()
        log.close()
        if "Traceback" in output or (loud and process.returncode > 0 and "error" not in output.lower()):
            self.account.tracebacks.append(f"{what}: {output[-1500:]}")
        return process.returncode, output

    def kill_all(self) -> None:
        while alive := self.processes():
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)

    def kill(self, process: subprocess.Popen, name: str) -> str:
        """Kill all processes of the command, or one of them that the seed picks among those that live."""
        alive = sorted(self.processes().items())
        if not alive or process.poll() is not None:
            return ""
        self.account.kills += 1
        if self.random.random() < 0.5:
            self.kill_all()
            return "all"
        pid, line = self.random.choice(alive)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        kinds = {
            "resource_tracker": "tracker",
            "spawn_main": "rank or pool worker",
            "dvc": "dvc",
            "stages/": "stage or its worker",
        }
        return next((kind for word, kind in kinds.items() if word in line), "other")

    def chain(self, name: str, command: list[str], kills: int) -> None:
        """Kill a command some times, then run it until it ends well, and look."""
        if name not in self.seconds:
            self.finish(name, command)
        for _ in range(kills):
            process, log = self.start(command)
            try:
                process.wait(self.random.uniform(0.2, 1.0) * self.seconds.get(name, 5.0))
            except subprocess.TimeoutExpired:
                pass
            victim = self.kill(process, name)
            key = victim or "too late"
            self.account.victims[key] = self.account.victims.get(key, 0) + 1
            code, output = self.end(process, log, f"{name}, killed: {victim}", loud=victim not in ("all", ""))
            self.tell(f"{self.account.kills} kills: {name}, {victim or 'ended before'}, code {code}")
        self.finish(name, command)

    def finish(self, name: str, command: list[str]) -> None:
        """Run the command until it ends well, which an orphan of the killed one may put off, and compare."""
        for _ in range(5):
            start = time.monotonic()
            code, output = self.end(*self.start(command), f"{name}, let be")
            if code == 0:
                self.seconds[name] = min(time.monotonic() - start, self.seconds.get(name, 1e9))  # of a quiet moment
                break
            time.sleep(5)
        else:
            self.account.differing.append(f"{name}: does not end well: {output[-600:]}")
            self.tell(self.account.differing[-1])
        self.look(name)

    def look(self, name: str) -> None:
        """Count differing bytes, leftovers and living processes; put things right for the next chain."""
        deadline = time.monotonic() + 60
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        if alive := self.processes():
            self.account.leftovers.append(f"{name}: processes {list(alive.values())}")
            self.kill_all()
        found = self.listing()
        wrong = [file for file, digest in self.files.items() if found.get(file) != digest]
        self.account.differing += [f"{name}: {file}{'' if file in found else ' is missing'}" for file in wrong]
        left = [str(self.project / file) for file in sorted(set(found) - set(self.files))]
        caches = ("torchinductor_",)  # torch's own, of undisturbed runs too
        left += [str(path) for path in sorted(self.temporary.iterdir()) if not path.name.startswith(caches)]
        left += [f"/dev/shm/{file}" for file in sorted(self.shared_memory() - self.shared)]
        left += [str(path) for path in self.project.glob("data/.*") if path.is_dir()]
        self.account.leftovers += [f"{name}: {each}" for each in left]
        for each in left:
            shutil.rmtree(each) if Path(each).is_dir() else Path(each).unlink(missing_ok=True)
        if wrong:
            self.restore()

    def restore(self) -> None:
        run(self.project, "git", "checkout", "-q", "--", ".")
        run(self.project, "dvc", "repro", "-q", "-f")
        self.files = self.listing()

    def tell(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def full_disk(self, name: str) -> None:
        """Run a stage where some bytes are left on the disk, then where there is room."""
        room, ballast = self.random.choice([0, 4096, 1 << 16, 1 << 18, 1 << 20, 1 << 21]), self.project / "ballast"
        with open(ballast, "wb") as stream:
            free = os.statvfs(self.project)
            os.posix_fallocate(stream.fileno(), 0, max(free.f_bavail * free.f_frsize - room, 1))
        code, output = self.end(*self.start(self.stages[name]), f"{name} with {room} bytes of disk")
        ballast.unlink()
        self.account.full_disks += 1
        self.tell(f"full disk, {room} bytes left: {name}, code {code}: {output.strip().splitlines()[-1:]}")
        self.finish(name, self.stages[name])

    def read_only(self, name: str) -> None:
        folders = [self.project / "data", self.project / "reports"]
        for folder in folders:
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        code, output = self.end(*self.start(self.stages[name]), f"{name}, read-only")
        if code == 0 or "Read-only file system" not in output:
            self.account.tracebacks.append(f"{name}, read-only outputs: code {code}, {output[-600:]}")
        for folder in folders:
            subprocess.run(["umount", folder], check=True)
        self.account.read_only += 1
        self.tell(f"read-only outputs: {name}, code {code}: {output.strip().splitlines()[-1:]}")
        self.finish(name, self.stages[name])

    def clock_set_back(self, name: str) -> None:
        """Kill a stage, date all that it kept and wrote two days ahead, and go on."""
        process, log = self.start(self.stages[name])
        time.sleep(0.7 * self.seconds.get(name, 10.0))
        self.kill_all()
        self.end(process, log, f"{name}, killed", loud=False)
        ahead = time.time() + 2 * 86400
        for path in [*(self.project / ".resume").rglob("*"), *(self.project / "data").rglob("*")]:
            os.utime(path, (ahead, ahead), follow_symlinks=False)
        self.account.clocks += 1
        self.tell(f"clock set back: {name}")
        self.finish(name, self.stages[name])

    def two_at_once(self, name: str, command: list[str]) -> None:
        """Each ends well or says that another is at work; neither harms the other."""
        both = [self.start(command) for _ in range(2)]
        found = [self.end(*each, f"{name}, two at once") for each in both]
        words = "another run is writing there", "the same run is going on", "lock", "busy"
        for code, output in found:
            if code and not any(word in output for word in words):
                self.account.tracebacks.append(f"{name}, two at once: {output[-600:]}")
        if all(code for code, _ in found):
            self.account.differing.append(f"{name}, two at once: both failed: {found}")
        self.account.at_once += 1
        self.tell(f"two at once: {name}, codes {[code for code, _ in found]}")
        self.finish(name, command)


def soak(folder: Path, options: argparse.Namespace) -> Account:
    """Do it all, or as much as there is time for: each stage by itself in turn, each fourth chain by DVC."""
    start, inside = time.monotonic(), bool(os.environ.get(_INSIDE))
    project = folder / "project"
    prepare(project, options.processes, options.prepared)
    it, kills, seconds = Soak(project, options.seed), options.kills, options.seconds
    it.tell(f"prepared in {time.monotonic() - start:.0f} s")
    start = time.monotonic()
    names = list(it.stages)
    it.random.shuffle(names)
    others = [lambda name: it.two_at_once(name, it.stages[name]), it.clock_set_back]
    if inside:
        others = [it.full_disk, others[0], it.read_only, it.full_disk, others[1]]
    else:
        it.account.skipped.append("full disk, read-only outputs: a mount namespace is not permitted here")
    turn = 0
    while it.account.kills < kills and time.monotonic() - start < seconds:
        name = names[turn % len(names)]
        if turn % 4 == 3:
            it.chain(f"dvc repro -f -s {name}", ["dvc", "repro", "-f", "-s", name], min(4, kills - it.account.kills))
        else:
            it.chain(name, it.stages[name], min(options.chain, kills - it.account.kills))
        if time.monotonic() - start < seconds:
            others[turn % len(others)](it.random.choice(names))
        turn += 1
    if time.monotonic() - start < seconds + 60:
        it.two_at_once("dvc repro -f -s report", ["dvc", "repro", "-f", "-s", "report"])
    return it.account


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3600, help="after which no new chain begins; preparing is not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chain", type=int, default=6, help="kills of a command before it is let be")
    parser.add_argument("--processes", type=int, default=2, help="num_processes; one alone is cheaper")
    parser.add_argument("--prepared", type=Path, help="a miniature project that was run, in place of a fresh one")
    parser.add_argument("--out", type=Path, help="a JSON file for the account")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mounts = f"mount -t tmpfs -o size=1g tmpfs {folder} && mount -t tmpfs tmpfs /dev/shm"
        unshare = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]
        permitted = shutil.which("unshare") and not subprocess.run([*unshare, mounts], capture_output=True).returncode
        if permitted and not os.environ.get(_INSIDE):
            command = [*unshare, f'{mounts} && exec "$@"', "sh", sys.executable, "-m", "tests.support.soak", *sys.argv[1:]]
            sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, _INSIDE: folder}).returncode)
        account = soak(Path(os.environ.get(_INSIDE, folder)), options)
    text = json.dumps(asdict(account), indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    sys.exit(f"{len(account.faults)} faults" if account.faults else 0)


if __name__ == "__main__":
    main()
