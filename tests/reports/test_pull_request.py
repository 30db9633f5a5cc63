"""The comment on a pull request, in a scratch git repository, and the workflow that posts it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpl.files import HplError
from hpl.reports.pull_request import changes, render_comment, results_table
from tests.support.imports import ROOT
from tests.support.repository import git

OLD = {"rank1": 50.0, "mAP": 40.0, "num_queries": 520}
NEW = {"rank1": 52.0, "rank1_ci_low": 49.0, "rank1_ci_high": 55.0, "mAP": 38.0, "mAP_ci_low": 37.0, "mAP_ci_high": 39.0}


def write(folder: Path, metrics: dict, params: str) -> None:
    (folder / "reports/figures").mkdir(parents=True, exist_ok=True)
    (folder / "reports/metrics.json").write_text(json.dumps(metrics))
    (folder / "params.yaml").write_text(params)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on main: the figures of OLD, then those of NEW."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    write(folder, {"t2i": OLD, "others": {"X": {"i2i": {"mAP": 1.0}}}}, "seed: 0\nloss:\n  prompt_reg: 0.06\n  gone: a|b\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "old")
    write(
        folder,
        {"t2i": NEW, "i2i": {"mAP": 5.0}, "others": {"X": {"i2i": {"mAP": 2.5}}}},
        "seed: 0\nloss: {prompt_reg: 0.5}\ntasks: [t2i]\n",
    )
    (folder / "reports/figures/curves_train.png").write_bytes(b"png")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "new")
    return folder


def test_a_difference_is_judged_by_the_interval() -> None:
    lines = results_table({"t2i": OLD}, {"t2i": NEW}).splitlines()
    assert lines[2:] == [
        "| T2I R1 | 50.00 | 52.00 (49.0-55.0) | ▲ +2.00, within the interval |",
        "| T2I mAP | 40.00 | 38.00 (37.0-39.0) | ▼ \u22122.00, **beyond the interval** |",
    ]
    assert results_table({"t2i": NEW}, {"t2i": OLD}).splitlines()[2].endswith("▼ \u22122.00, within the interval |")
    assert results_table({"i2i": OLD}, {"i2i": OLD | {"rank1": 51.0}}).splitlines()[2:] == [
        "| I2I R1 | 50.00 | 51.00 | ▲ +1.00 |",
        "| I2I mAP | 40.00 | 40.00 | = |",
    ]
    assert results_table({}, {"i2i": {"mAP": 5.0}}).splitlines()[2:] == ["| I2I mAP | - | 5.00 | - |"]


def test_no_difference_is_judged_on_another_test_set() -> None:
    text = results_table({"t2i": OLD}, {"t2i": NEW | {"num_queries": 514}, "i2i": {"rank1": 1.0, "num_queries": 3}})
    assert "| T2I mAP | 40.00 | 38.00 (37.0-39.0) | ▼ \u22122.00 |" in text.splitlines() and "interval" not in text
    note = "`t2i`: the test set differs (num_queries was 520, is 514); the figures are not comparable as they stand."
    assert text.endswith(f"|\n\n{note}")
    assert "differs" not in results_table({"t2i": OLD}, {"t2i": NEW | {"num_queries": 520}})


def test_no_difference_is_judged_where_other_pictures_were_ignored() -> None:
    text = results_table({"i2i": OLD}, {"i2i": NEW | {"num_copies_ignored": 12}})
    assert "interval" not in text and "(num_copies_ignored was 0, is 12); the figures are not comparable" in text
    assert "differs" not in results_table({}, {"i2i": NEW | {"num_copies_ignored": 12}})


def test_no_difference_is_judged_by_other_settings_or_on_another_data_set() -> None:
    old, new = {"t2i": OLD, "datasets": {"t2i": "A"}}, {"t2i": NEW, "datasets": {"t2i": "A"}}
    ranked = {"settings": {"rerank": 1}}
    text = results_table(old, new | ranked)
    assert text.startswith("| percent, re-ranked |") and "interval" not in text
    assert text.endswith("Evaluated by the plain protocol before, re-ranked now: the figures are not comparable.")
    text = results_table(old | ranked, new | ranked)
    assert text.startswith("| percent, re-ranked |") and "within the interval" in text and "not comparable" not in text
    text = results_table(old, new | {"datasets": {"t2i": "B"}})
    assert "`t2i`: the test set differs (it was A, is B)" in text and "interval" not in text
    assert "interval" not in results_table(old, new, same_data=False)


def test_composed_queries_and_strangers_are_rows_of_the_table() -> None:
    old = {"composed": {"both": {"rank1": 60.0}}, "open_set": {"t2i": {"detection_rate": 12.0, "num_known": 9}, "i2i": {}}}
    new = {
        "composed": {"both": {"rank1": 61.0, "rank1_ci_low": 60.5, "rank1_ci_high": 62.0}, "picture": {"rank1": 1.0}},
        "open_set": {"t2i": {"detection_rate": 13.0, "num_known": 8}, "i2i": {"detection_rate": 3.0}},
    }
    assert results_table(old, new).splitlines()[2:] == [
        "| Composed R1 | 60.00 | 61.00 (60.5-62.0) | ▲ +1.00, **beyond the interval** |",
        "| Strangers T2I, found | 12.00 | 13.00 | ▲ +1.00 |",
        "| Strangers I2I, found | - | 3.00 | - |",
        "",
        "`open_set.t2i`: the test set differs (num_known was 9, is 8); the figures are not comparable as they stand.",
    ]


def test_changes_are_flat_and_tell_what_came_and_went() -> None:
    old, new = {"a": {"b": 1, "c": [1, 2]}, "d": {}}, {"a": {"b": 1, "c": [2]}, "e": None}
    assert changes(old, new) == {"a.c": ("[1, 2]", "[2]"), "e": ("-", "null"), "d": ("{}", "-")}
    assert changes(old, old) == {}


def test_the_comment_has_figures_parameters_and_pictures(repository: Path) -> None:
    text = render_comment("main~1", repository)
    assert text.startswith(f"### Against `main~1` ({git(repository, 'rev-parse', '--short', 'main~1')})\n")
    assert "| I2I mAP | - | 5.00 | - |" in text
    for line in (
        "| `loss.prompt_reg` | `0.06` | `0.5` |",
        '| `tasks` | - | `["t2i"]` |',
        '| `loss.gone` | `"a\\|b"` | - |',
        "| `others.X.i2i.mAP` | `1.0` | `2.5` |",
    ):
        assert line in text.splitlines(), text
    assert "`seed`" not in text and "_ci_" not in text
    assert text.count("![") == 1 and "![Loss curves](reports/figures/curves_train.png)" in text
    assert "None changed" in render_comment("HEAD", repository)


def test_what_is_not_scored_is_said_with_its_reason(repository: Path) -> None:
    content = {"t2i": NEW, "not_scored": {"X": {"i2i": "all 9 pictures are by camera 3"}}}
    (repository / "reports/metrics.json").write_text(json.dumps(content))
    text = render_comment("main", repository)
    assert "\n\nNot scored: `X, image to image`: all 9 pictures are by camera 3.\n\n" in text and "not_scored" not in text
    assert "| I2I mAP | 5.00 | - | - |" in text


def test_what_data_and_machine_may_have_changed_is_said(repository: Path) -> None:
    assert "Neither code nor parameters differ from `HEAD`" in render_comment("HEAD", repository)
    assert "Neither code" not in render_comment("main~1", repository) and "95 % intervals over the test people" in render_comment(
        "HEAD", repository
    )
    write(repository, {"t2i": OLD}, "seed: 0\nloss: {prompt_reg: 0.5}\ntasks: [t2i]\nsynthetic: {distractors: 500}\n")
    text = render_comment("HEAD", repository)
    assert "Parameters of the data changed" in text and "within the" not in text and "**beyond" not in text


@pytest.mark.parametrize(
    "file, content, complaint",
    [
        ("reports/metrics.json", "<<<<<<< HEAD", "reports/metrics.json: Expecting value"),
        ("reports/metrics.json", "[1]", "reports/metrics.json: holds list; expected names with values"),
        ("params.yaml", "a: [", "params.yaml: .*line 1"),
    ],
)
def test_files_that_cannot_be_read_are_named(repository: Path, file: str, content: str, complaint: str) -> None:
    (repository / file).write_text(content)
    with pytest.raises(HplError, match=complaint):
        render_comment("HEAD", repository)
    git(repository, "commit", "-qam", "broken")
    git(repository, "checkout", "-q", "HEAD~1", "--", file)
    with pytest.raises(HplError, match=complaint.replace(":", " of HEAD:", 1)):
        render_comment("HEAD", repository)


def test_on_github_pictures_are_linked_at_the_commit_that_holds_them(repository: Path) -> None:
    new, old = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD~1")
    link = f"(https://raw.githubusercontent.com/owner/name/{new}/reports/figures/curves_train.png)"
    text = render_comment("main~1", repository, "owner/name", new)
    assert link in text and f"Pictures as committed in {new[:7]}" in text
    assert "![" not in (text := render_comment("main~1", repository, "owner/name", old)) and "Pictures as committed" not in text


def test_a_base_without_figures_is_said(repository: Path) -> None:
    git(repository, "checkout", "-q", "--orphan", "empty")
    git(repository, "rm", "-rqf", ".")
    git(repository, "commit", "-qm", "empty", "--allow-empty")
    git(repository, "checkout", "-q", "main")
    text = render_comment("empty", repository)
    assert "`empty` holds no reports/metrics.json." in text and "| T2I R1 | - | 52.00 (49.0-55.0) | - |" in text


def test_a_base_that_was_not_fetched_is_named(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    for base in ("origin/main~1", "origin/elsewhere"):
        with pytest.raises(HplError, match=f"{base}: git knows no such revision here; this clone is shallow: git fetch --unshal"):
            render_comment(base, tmp_path / "shallow")
    with pytest.raises(HplError, match="elsewhere: git knows no such revision here; `git fetch` it") as caught:
        render_comment("elsewhere", repository)
    assert "shallow" not in str(caught.value)
    assert "| T2I R1 |" in render_comment("origin/main", tmp_path / "shallow")
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(HplError, match="main: git: not a git repository"):
        render_comment("main", outside)


def test_a_checkout_of_another_user_is_no_shallow_clone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where git fails later: what it says is passed on, in one line, and not taken for `there is no such file`."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    whole = render_comment("main~1", repository)
    blob = git(repository, "rev-parse", "main~1:params.yaml")
    (repository / ".git/objects" / blob[:2] / blob[2:]).rename(repository / "kept")
    with pytest.raises(HplError, match="main~1: params.yaml: git: bad object"):
        render_comment("main~1", repository)
    (repository / "kept").rename(repository / ".git/objects" / blob[:2] / blob[2:])
    assert render_comment("main~1", repository) == whole
    assert "No pictures: git: " in render_comment("main~1", repository, "owner/name", "0" * 40)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(HplError, match="main~1: git: detected dubious ownership in repository at .* safe.directory") as caught:
        render_comment("main~1", repository)
    assert "shallow" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_prints_it_or_one_error(repository: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")} | {
        "PYTHONPATH": str(ROOT)
    }
    command = [sys.executable, "-m", "hpl.reports.pull_request"]
    done = subprocess.run([*command, "main~1"], cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == render_comment("main~1", repository)
    done = subprocess.run([*command, "nowhere"], cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: nowhere:") and done.stderr.count("\n") == 1


def test_the_workflow_calls_what_exists_with_few_rights() -> None:
    text = (ROOT / ".github/workflows/hpl.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    rights = {name: job["permissions"] for name, job in workflow["jobs"].items()}
    assert rights["figures"] == {"contents": "read"} and rights["comment"] == {"pull-requests": "write"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert next(step for step in steps if "checkout" in step.get("uses", ""))["with"]["fetch-depth"] == 0
    commands = "\n".join(step["run"] for step in steps if "run" in step)
    called = set(re.findall(r"make (?:--silent )?([a-z-]+)", commands))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"test", "repro", "pr-comment"} <= called <= targets
    assert commands.index("make test") < commands.index("make repro") < commands.index("dvc gc --workspace")
    assert "${{" not in commands  # what a stranger may name reaches the shell as a variable


@pytest.mark.parametrize("own, call", [("", "POST repos/o/r/issues/5/comments"), ("77", "PATCH repos/o/r/issues/comments/77")])
def test_the_workflow_keeps_one_comment(tmp_path: Path, own: str, call: str) -> None:
    """Its last step, with a gh that notes what it is asked."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/hpl.yml").read_text())
    gh = tmp_path / "gh"
    gh.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/asked"\ncase "$*" in *--jq*) echo {own} ;; esac\n')
    gh.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GITHUB_REPOSITORY": "o/r", "NUMBER": "5", **workflow["env"]}
    script = workflow["jobs"]["comment"]["steps"][-1]["run"]
    subprocess.run(["bash", "-e", "-c", script], env=environment, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 2 and workflow["env"]["MARK"] in asked[0]
    assert call in asked[1] and asked[1].endswith("-F body=@comment.md")
