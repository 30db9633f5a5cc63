"""`dvc exp run --temp` with data of one's own, as docs/own.md tells it: which data it finds, and what of .resume."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.pipeline import run

pytestmark = pytest.mark.slow
STAGE = """
from hpl.files import kept_folder
from pathlib import Path
kept_folder("a").mkdir(parents=True, exist_ok=True)
(kept_folder("a") / "log").open("a").write(f"{Path.cwd()}\\n")
print("FOUND", sorted(file.name for file in Path("data/raw/own").rglob("*.jpg")), sorted(Path("data/weights").glob("*.pt")))
Path("out").write_text("1")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one stage, on data and weights as the pipeline's."""
    folder = tmp_path / "project"
    (folder / "data/weights").mkdir(parents=True)
    (folder / "data/weights/.gitignore").write_text("*\n!.gitignore\n")
    (folder / "data/weights/clip.pt").write_text("weights")
    (folder / ".gitignore").write_text(".resume/\n__pycache__/\n")
    (folder / "stage.py").write_text(STAGE)
    (folder / "hpl").mkdir()
    for name in ("__init__.py", "files.py"):
        shutil.copy(Path(__file__).parents[1] / "hpl" / name, folder / "hpl" / name)
    (folder / "params.yaml").write_text("seed: 0\n")
    (folder / "dvc.yaml").write_text(
        "stages: {a: {cmd: python stage.py, deps: [data/raw/own, data/weights], params: [seed], outs: [out]}}\n"
    )
    for person in ("anna", "ben"):
        (tmp_path / "pictures" / person).mkdir(parents=True)
        (tmp_path / "pictures" / person / f"{person}.jpg").write_text(person)
    (folder / "data/raw").mkdir()
    for command in ("git init -q", "git config user.email nobody@example.org", "git config user.name nobody", "dvc init -q"):
        run(folder, *command.split())
    return folder


@pytest.mark.parametrize(
    ("held", "options", "found"),
    [
        ("untracked", (), False),
        ("untracked", ("-C", "data/raw/own", "-C", "data/weights/clip.pt"), True),
        ("link", (), True),
        ("dvc", (), True),
    ],
)
def test_a_run_aside_finds_data_that_is_committed_tracked_or_copied(
    project: Path, held: str, options: tuple, found: bool
) -> None:
    own = project / "data/raw/own"
    if held == "link":
        own.symlink_to(project.parent / "pictures")
    else:
        shutil.copytree(project.parent / "pictures", own)
    if held == "dvc":
        run(project, "dvc", "add", "-q", "data/raw/own")
    run(project, "git", "add", "-A", "--", ".", *([":!data/raw/own"] if held == "untracked" else []))
    run(project, "git", "commit", "-qm", "project")
    output = run(project, "dvc", "exp", "run", "--temp", "-S", "seed=1", *options, fails=not found)
    assert ("FOUND ['anna.jpg', 'ben.jpg']" in output) == found
    if not found:
        assert "No such file or directory" in output and "data/raw/own" in output
        return
    assert ("clip.pt" in output) == bool(options)  # git ignores weights: only -C brings them
    (ran_in,) = (project / ".resume/a/log").read_text().splitlines()  # .resume is the checkout's own
    assert ".dvc/tmp/exps" in ran_in and not os.path.exists(ran_in)
    if options:  # what git neither tracks nor ignores is committed with the experiment
        assert "data/raw/own/anna/anna.jpg" in run(project, "git", "log", "--all", "--name-only", "--format=")
