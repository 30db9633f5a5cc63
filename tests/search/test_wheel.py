"""The wheel, installed into a fresh environment, searches."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.imports import ROOT
from tests.support.small_model import draw_pictures, save_small_model


@pytest.mark.slow
def test_the_wheel_searches_in_a_fresh_environment(tmp_path: Path) -> None:
    """Its dependencies are those of this environment, by a .pth file: no network."""
    source = tmp_path / "source"
    files = subprocess.run(
        ["git", "ls-files", "hpl", "pyproject.toml", "README.md", "LICENSE"], cwd=ROOT, capture_output=True, text=True
    )
    for name in files.stdout.split():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        tmp_path,
        source,
    ]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("hpl_reid-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    model, crops = save_small_model(tmp_path / "model"), tmp_path / "crops"
    draw_pictures(crops, 3)

    def hpl(*words: object) -> str:
        command = [str(tmp_path / "venv" / "bin" / "hpl"), *map(str, words)]
        environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout

    hpl("index", "add", "g", crops, "--model", model)
    assert len(hpl("search", "g", "-t", "a man").splitlines()) == 3
    code = "import hpl; print(hpl.__file__)"
    told = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path).stdout
    assert told.startswith(str(site))
