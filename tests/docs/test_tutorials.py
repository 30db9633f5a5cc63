"""The tutorials are true: code blocks of the pages run in a copy of the project with a miniature network."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.support.imports import ROOT
from tests.support.pipeline import copy_project, ran, run

pytestmark = pytest.mark.slow


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), flags=re.M | re.S)


def commands(page: str) -> list[list[str]]:
    """The commands of a page's `sh` blocks."""
    return [shlex.split(line, comments=True) for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]


def in_python(project: Path, page: str) -> str:
    """Run a page's Python blocks in one session; returns what they print."""
    return run(project, sys.executable, "-c", "\n".join(blocks(page, "python")))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a miniature profile, trained once and committed."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    for command in (("true",), ("dvc", "repro", "train")):
        run(folder, *command)
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-qm", "miniature")
    return folder


@pytest.mark.parametrize(("page", "num_lists"), [("docs/use.md", 2), ("README.md", 1)])
def test_pictures_are_ranked_by_a_sentence(project: Path, page: str, num_lists: int) -> None:
    if page == "README.md":  # as its commands say
        shutil.copytree(project / "data/raw/bundled/Market-1501/query", project / "crops")
        (add,) = [line for line in blocks(page, "")[1].splitlines() if line.startswith("hpl index add")]
        run(project, sys.executable, "-m", "hpl.cli", *shlex.split(add, comments=True)[1:])
    printed = in_python(project, page).splitlines()
    assert len([line for line in printed if line.endswith(".jpg")]) == 5 * num_lists, printed


def test_one_switch_of_the_ablation(project: Path) -> None:
    (command,) = commands("docs/ablation.md")
    assert {"train", "evaluate"} <= set(ran(run(project, *command)))
    figures = in_python(project, "docs/ablation.md").splitlines()[-1].split()
    assert len(figures) == 2 and all(0 <= float(figure) <= 100 for figure in figures)
    run(project, "git", "checkout", "-q", "--", "params.yaml")


def test_a_folder_of_crops_becomes_a_model_and_ranked_lists(project: Path) -> None:
    """With the miniature network in place of CLIP's weights."""
    source, root = project / "data/raw/bundled/Market-1501/bounding_box_train", project / "data/raw/own/people"
    for file in sorted(source.glob("*.jpg")):
        person = root / file.name[:4]
        person.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, person / file.name)
        (person / file.name).with_suffix(".txt").write_text(f"The person called {file.name[:4]}.")
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    own, bundled = params["profiles"]["own"], params["profiles"]["bundled"]
    (pattern,) = [line for block in blocks("docs/own.md", "yaml") for line in block.splitlines()]
    assert pattern == r"camera_pattern: cam(\d+)_"
    own["data"]["datasets"][0]["camera_pattern"] = r"_c(\d)"  # as these files are named
    for section in ("input", "backbone", "inversion", "construct_prompts", "train"):
        own[section] = bundled[section]
    yaml.representer.ignore_aliases = lambda *_: True
    yaml.dump(params, project / "params.yaml")
    look, train = commands("docs/own.md")
    assert ran(run(project, *look)) == ["preprocess", "audit"]
    assert {"train", "evaluate"} <= set(ran(run(project, *train)))
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert metrics["t2i"]["num_queries"] >= 3 and metrics["i2i"]["num_queries"] >= 3
    pictures = pd.read_parquet(project / "data/manifests/images.parquet")
    assert pictures.groupby("person")["split"].nunique().max() == 1  # nobody is on both sides
    assert set(pictures["role"]) == {"train", "val", "query", "gallery"}
    assert "similarity" in in_python(project, "docs/own.md")


def test_blocks_are_found() -> None:
    assert len(blocks("docs/use.md", "python")) == 4 and len(commands("docs/own.md")) == 2
    for page in ("docs/use.md", "README.md"):
        compile("\n".join(blocks(page, "python")), page, "exec")
    assert subprocess.run(["bash", "-n", ROOT / "docs/slurm.sh"]).returncode == 0
