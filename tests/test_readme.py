"""The README is one page, and what it says can be done can be done. No test here demands a figure that another CPU turns."""

import json
import re
import shlex
import statistics
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from hpl.cli import app
from hpl.config import load_params
from hpl.reports.pull_request import flat
from tests.support.imports import ROOT

README = (ROOT / "README.md").read_text()
MARKS = {
    "results": ("<!-- results: written by the report stage -->", "<!-- end of results -->"),
    "ablation": ("<!-- ablation: written by the ablation_report stage -->", "<!-- end of ablation -->"),
}
# The paper's rank-1 / mAP: text to image, image to image.
PAPER = {
    "paper-cuhk-market": ("76.28 / 70.90", "95.99 / 89.82"),
    "paper-icfg-msmt": ("66.61 / 44.14", "91.04 / 79.01"),
    "paper-rstp-duke": ("64.00 / 53.13", "90.35 / 82.93"),
}


def paragraphs(text: str) -> list[str]:
    """Blocks between empty lines, without code, tables, lists, headings, pictures and comments."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"^(\||#|- |\* |!\[|<!--).*\n", "\n", text, flags=re.M)
    return [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]


def commands() -> list[list[str]]:
    """Lines of blocks without a language, and what stands in backticks and begins like a command."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.M | re.S)
    lines = [line for language, block in blocks if language in ("", "sh") for line in block.splitlines() if line.strip()]
    lines += re.findall(r"`((?:make|dvc|python|pip) [^`]+)`", README)
    return [shlex.split(line, comments=True) for line in lines]


def test_it_is_one_page() -> None:
    assert len(README.splitlines()) <= 130
    assert statistics.median(len(block.split()) for block in paragraphs(README)) < 25
    assert len(paragraphs(README)) >= 10


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_stages_find_their_places(page: str) -> None:
    text = (ROOT / page).read_text()
    for start, end in MARKS.values():
        assert text.count(start) == text.count(end) == 1 and "|---" in text[text.index(start) : text.index(end)]


def test_its_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    stages = set(re.findall(r"^  ([a-z_]+):", (ROOT / "dvc.yaml").read_text(), re.M))
    assert len(commands()) >= 8
    for program, *words in commands():
        if program == "make":
            assert words[0] in targets, words
        elif program == "hpl":
            verb = get_command(app)
            for name in words[: 2 if words[0] == "index" else 1]:
                verb = verb.commands[name]
            options = {option for each in verb.params for option in each.opts}
            assert {word for word in words if word.startswith("-")} <= options, words
        elif words[:2] == ["exp", "run"]:
            overrides = [word for before, word in zip(words, words[1:]) if before == "-S"]
            load_params(ROOT / "params.yaml", overrides)
            rest = [word for word in words[2:] if word != "-S" and word not in overrides]
            assert overrides and set(rest) <= stages, rest
        else:
            assert (program, *words) == ("dvc", "repro"), (program, *words)


@pytest.mark.parametrize("page", ["README.md", "reports/README.md", "CONTRIBUTING.md"])
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_files_that_pages_name_exist() -> None:
    """Paths in backticks that begin like one of the repository's folders, or name a script."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    files = set(listed.stdout.splitlines())
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`((?:hpl|tests|stages|benchmarks|reports|ablation|docs)/[A-Za-z0-9_./-]*)`", page.read_text()):
            built = name.startswith("docs/_build")
            assert built or name in files or any(file.startswith(name.rstrip("/") + "/") for file in files), (
                f"{page.name}: {name}"
            )


@pytest.mark.parametrize("page", ["README.md", "docs/real-sets.md"])
def test_the_papers_figures_are_the_papers(page: str) -> None:
    rows = {line.split("`")[1]: line for line in Path(ROOT / page).read_text().splitlines() if line.startswith("| `paper-")}
    assert (
        rows.keys() == PAPER.keys() == {name for name in load_params(ROOT / "params.yaml").profiles if name.startswith("paper-")}
    )
    for name, figures in PAPER.items():
        assert re.findall(r"\d+\.\d+ / \d+\.\d+", rows[name]) == list(figures)


def test_the_table_of_experiments_has_the_main_figures_and_every_parameter() -> None:
    """DVC drops a column whose name begins with a match."""
    clutter = re.compile(re.search(r"^CLUTTER := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1])
    figures = flat(json.loads((ROOT / "reports" / "metrics.json").read_text()))
    main = {f"{name}.{figure}" for name in ("t2i", "i2i", "composed.both") for figure in ("rank1", "mAP")}
    assert {name for name in figures if not clutter.match(name)} == main | {
        f"open_set.{task}.detection_rate" for task in ("t2i", "i2i")
    }
    assert not [name for name in flat(load_params(ROOT / "params.yaml").model_dump()) if clutter.match(name)]
    for name in ("Created", "hpl/config.py", "data/model", "reports/metrics.json", "stages/train.py", "composed.both.mAP_ci_low"):
        assert clutter.match(name), name
