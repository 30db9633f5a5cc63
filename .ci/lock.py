"""usage: .venv/bin/python .ci/lock.py  (or `make lock`): write requirements.lock from constraints.txt, setuptools added.

It has the hash of each file that pip would take on Linux, x86-64 and aarch64, by Python 3.11 to 3.13. pip is asked for them in a
dry run, which a recent one (25 or later) answers without fetching a package.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PYTHONS, MACHINES = ("3.11", "3.12", "3.13"), ("x86_64", "aarch64")
OLD_PLATFORMS = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
HEAD = """# The hash of each file that `make` installs on Linux (x86-64, aarch64; Python 3.11 to 3.13).
# Written by `make lock`: change constraints.txt, not this file.
"""


def files(pins: list[str], python: str, machine: str, folder: Path) -> dict[str, tuple[str, str]]:
    """Map each pin that has a file to the hash of that which pip takes, and to the first Python of this line that it is for."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(39, 4, -1)] + [f"{name}_{machine}" for name in OLD_PLATFORMS]
    options = [part for tag in tags for part in ("--platform", tag)]
    options += ["--python-version", f"{python}.50", "--implementation", "cp", "--target", str(folder / "target"), "--no-deps"]
    options += [part for abi in (f"cp{python.replace('.', '')}", "abi3", "none") for part in ("--abi", abi)]
    wanted, report = list(pins), folder / "report.json"
    while True:
        (folder / "pins.txt").write_text("\n".join(wanted))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", str(report), *options]
        done = subprocess.run([*command, "--requirement", str(folder / "pins.txt")], capture_output=True, text=True)
        if done.returncode == 0:
            break
        absent = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if not absent:
            sys.exit(f"error: pip: {done.stderr[-2000:]}")
        wanted.remove(absent[1])
    names, found = {normal(pin.partition("==")[0]): pin for pin in wanted}, {}
    for each in json.loads(report.read_text())["install"]:
        allowed = SpecifierSet(each["metadata"].get("requires_python", ""))
        first = next(f"{python}.{patch}" for patch in range(51) if f"{python}.{patch}" in allowed)
        pin = names[normal(each["metadata"]["name"])]
        found[pin] = each["download_info"]["archive_info"]["hashes"]["sha256"], first
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lock(pins: list[str], found: dict[tuple[str, str], dict[str, tuple[str, str]]]) -> str:
    """Make the lock file's text; a pin without a file on some platform gets a marker that leaves it out there."""
    lines = []
    for pin in pins:
        there = [place for place, hashes in found.items() if pin in hashes]
        if not there:
            sys.exit(f"error: {pin}: no file for any platform")
        tests = [f"python_version == '{python}' and platform_machine == '{machine}'" for python, machine in there]
        least = max(found[place][pin][1] for place in there if place[0] == PYTHONS[0]) if there[0][0] == PYTHONS[0] else ""
        marker = "" if len(there) == len(found) else f" ; {' or '.join(tests)}"
        if not marker and not least.endswith(".0"):
            marker = f" ; python_full_version >= '{least}'"
        hashes = sorted({found[place][pin][0] for place in there})
        lines.append(" \\\n    ".join([f"{pin}{marker}", *(f"--hash=sha256:{each}" for each in hashes)]))
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = sorted([*pins, *setuptools()], key=str.lower)
    found = {}
    for python in PYTHONS:
        for machine in MACHINES:
            with tempfile.TemporaryDirectory() as folder:
                found[python, machine] = files(pins, python, machine, Path(folder))
            missing = ", ".join(pin for pin in pins if pin not in found[python, machine])
            print(
                f"Python {python}, {machine}: {len(found[python, machine])} files, none of {missing or 'nothing'}",
                file=sys.stderr,
            )
    (ROOT / "requirements.lock").write_text(lock(pins, found))


def setuptools() -> list[str]:
    """Name the version that the lock has already, or that this Python has: it builds the project itself."""
    file = ROOT / "requirements.lock"
    kept = re.findall(r"^setuptools==[\w.]+", file.read_text(), re.MULTILINE) if file.is_file() else []
    return kept or [f"setuptools=={version('setuptools')}"]


if __name__ == "__main__":
    main()
