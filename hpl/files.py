"""Files as every stage writes them: whole or not at all, and the same bytes for the same content."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class HplError(Exception):
    """A fault the user can mend. The message names the file or record, the value, and what was expected."""


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it on success and vanishes on failure."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    lock = _lock_folder(partial)
    try:
        for left in partial.iterdir():  # by a run that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        with room(path):
            yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Turn what writers say of a full disk, each in its own words and most without a name, into an HplError."""
    try:
        yield
    except Exception as error:
        if not re.search("No space left|quota exceeded|disk is full|requested and [0-9]+ written", str(error)):
            raise
        raise HplError(f"{path}: no space left on the disk; make room, then run the same command again") from None


def _lock_folder(folder: Path) -> int:
    """Make the folder and hold it. Returns a descriptor to close; HplError if another process holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # the other run ended just now
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise HplError(f"{folder}: another run is writing there; stop that one or wait for it") from None
        except OSError:  # a file system without locks
            return descriptor
        os.close(descriptor)


def kept_folder(name: str) -> Path:
    """Name the folder of work that may be used again, outside all outputs and git: `.resume/<name>` of DVC's project."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".resume" / name


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, making its folder if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with room(path):
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys and a final newline, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; HplError names the file, and the place where the syntax breaks."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise HplError(f"{path}: file not found") from None
    except UnicodeDecodeError as error:
        raise HplError(f"{path}: not UTF-8 text (byte {error.start}); expected a JSON file") from None
    except json.JSONDecodeError as error:
        raise HplError(f"{path}: line {error.lineno}, column {error.colno}: malformed JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise HplError(f"{path}: JSON that cannot be read ({error})") from None


_SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Write beside the files of a folder what each is, as `sha256sum -c SHA256SUMS` reads it."""
    write_text(Path(folder) / _SUMS, "".join(f"{line}\n" for line in _sums(folder)))


def _sums(folder: Path) -> list[str]:
    files = sorted(file for file in Path(folder).iterdir() if file.name != _SUMS)
    return [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]


def check_sums(folder: Path, stage: str) -> None:
    """Raise HplError unless the files of a folder that `stage` wrote are there, as it wrote them."""
    file = Path(folder) / _SUMS
    if not file.is_file():
        raise HplError(f"{file}: file not found; run the {stage} stage")
    wrong = set(_sums(folder)).symmetric_difference(file.read_text(encoding="utf-8", errors="replace").splitlines())
    if wrong:
        names = ", ".join(sorted({line.partition("  ")[2] for line in wrong}))
        raise HplError(f"{folder}: not as the {stage} stage wrote it ({names}); delete it and run that stage again")


@contextmanager
def parsing(file: Path, again: str) -> Iterator[None]:
    """Turn whatever a parser raises at a file that a stage wrote into an HplError, which ends in the way out, `again`."""
    try:
        yield
    except HplError:
        raise
    except Exception as error:  # parsers raise nearly anything at bytes they do not expect; the file is at fault
        said = " ".join(str(error).split())[:160]
        raise HplError(f"{file}: damaged, or of another version ({type(error).__name__}: {said}); {again}") from error


def readable(message: object) -> str:
    """Make a message fit for a terminal: no control characters or broken text of a file in it, and no line without end."""
    text = re.sub(r"[^ -~\n]|\n(?!  )", lambda match: match[0] if match[0].isprintable() else ascii(match[0])[1:-1], str(message))
    return "\n".join(line if len(line) <= 1000 else f"{line[:600]} ... {line[-300:]}" for line in text.split("\n"))


def run_stage(main: Callable[[], None]) -> None:
    """Run the body of a stage script; a user's mistake ends it with one error message and no traceback."""
    try:
        main()
    except HplError as error:
        sys.exit(f"error: {readable(error)}")
    except OSError as error:  # disk full, no permission, a name too long: the message has the file
        sys.exit(f"error: {readable(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
