"""What a change did to figures and parameters, as Markdown for a pull request: `python -m hpl.reports.pull_request origin/main`.

Compares reports/metrics.json and params.yaml of the working tree with those of a git revision.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from hpl.files import HplError, run_stage
from hpl.reports.content import FIGURE_LABELS, MAIN_FIGURES, figure_labels, interval_of, settings_words, signed, with_interval
from hpl.reports.results import not_scored
from hpl.runtime.provenance import ask_git
from hpl.tasks import T2I, TASKS

METRICS, PARAMS, FIGURES_FOLDER = "reports/metrics.json", "params.yaml", "reports/figures"  # as dvc.yaml has them
_PICTURES = {
    **{f"{FIGURES_FOLDER}/rank_lists_{task.name}.png": f"Rank lists, {task.title.lower()}" for task in TASKS.values()},
    f"{FIGURES_FOLDER}/curves_train.png": "Loss curves",
}
SHOWN_FIGURES = {  # where they stand in METRICS, and the task whose test set they are of -> each with its label
    **{
        (task.name, task): {name: f"{task.short} {label}" for name, label in figure_labels(task).items()}
        for task in TASKS.values()
    },
    ("composed.both", T2I): {name: f"Composed {FIGURE_LABELS[name]}" for name in MAIN_FIGURES},
    **{(f"open_set.{task.name}", task): {"detection_rate": f"Strangers {task.short}, found"} for task in TASKS.values()},
}
_COUNTS = ("num_queries", "num_known", "num_unknown", "num_copies_ignored")  # the last only where there are any


def render_comment(base: str, root: Path = Path("."), repository: str = "", sha: str = "") -> str:
    """Render as Markdown the main figures before and after, other figures and parameters that changed, pictures.

    Args:
        base: a git revision.
        root: the project's root, in a git repository.
        repository, sha: owner/name and commit on GitHub; with both, pictures are linked where that commit holds them, else by
            relative path.

    Raises:
        HplError: git does not know `base`, or cannot be asked, with its reason; there are no figures to compare.
    """
    status, found, reason = ask_git(root, "rev-parse", "--verify", "--quiet", "--short", f"{base}^{{commit}}")
    if status:
        raise HplError(f"{base}: git: {reason}" if reason else _unknown_revision(root, base))
    old_metrics = _parse(_held(root, base, METRICS) or "{}", json.loads, f"{METRICS} of {base}")
    new_metrics = _parse((root / METRICS).read_text(encoding="utf-8"), json.loads, METRICS) if (root / METRICS).is_file() else {}
    if not new_metrics:
        raise HplError(f"{METRICS}: there are no figures; expected those of `dvc repro`")
    yaml = YAML(typ="safe", pure=True)
    old_params = _parse(_held(root, base, PARAMS) or "{}", yaml.load, f"{PARAMS} of {base}")
    new_params = _parse((root / PARAMS).read_text(encoding="utf-8"), yaml.load, PARAMS)
    changed = changes(old_params, new_params)
    of_data = re.compile(rf"profile$|synthetic\.|preprocess\.|profiles\.{re.escape(str(new_params.get('profile')))}\.data\.")
    same_data = not any(of_data.match(key) for key in changed)
    sections = [f"### Against `{base}` ({found})", results_table(old_metrics, new_metrics, same_data)]
    if not old_metrics:
        sections.append(f"`{base}` holds no {METRICS}.")
    elif not same_data:
        sections.append("Parameters of the data changed, and with them perhaps the test set: no change is judged.")
    sections += [f"Not scored: `{name}`: {reason}." for name, reason in not_scored(new_metrics).items()]
    same = f" Neither code nor parameters differ from `{base}`: what changed is of the machine." if _same_code(root, base) else ""
    sections.append(
        "In brackets: 95 % intervals over the test people. Another training seed, or another kind of processor, moves figures "
        f"too.{same}"
    )
    shown = {f"{place}.{name}" for (place, _), labels in SHOWN_FIGURES.items() for name in labels}
    others = {
        key: change
        for key, change in changes(old_metrics, new_metrics).items()
        if key not in shown and "_ci_" not in key and not key.startswith("not_scored.")
    }
    sections.append("**Parameters.** " + (_change_table(changed) or "None changed."))
    if old_metrics and others:
        table = _change_table(others).strip()
        sections.append(f"<details><summary>Other figures that changed</summary>\n\n{table}\n\n</details>")
    if pictures := _pictures(root, repository, sha):
        if repository and sha:
            pictures.insert(0, f"Pictures as committed in {sha[:7]}: they may be older than the figures.")
        sections.append("\n\n".join(pictures))
    return "\n\n".join(sections) + "\n"


def results_table(old: dict, new: dict, same_data: bool = True) -> str:
    """Tabulate the figures of SHOWN_FIGURES before and after, in percent, with their 95 % intervals where there are such.

    A change lies within the interval if the old figure is inside that of the new one, or the new one inside that of the old. It
    is not judged without `same_data`, or where the data set, the number of queries or the settings of the evaluation differ; a
    line below the table says so.
    """
    before_words, words = (settings_words(metrics.get("settings", {})) for metrics in (old, new))
    lines, notes = [f"| percent{words} | before | now | change |", "|---|---:|---:|---|"], []
    if old and before_words != words:
        kinds = [each.removeprefix(", ") or "by the plain protocol" for each in (before_words, words)]
        notes.append(f"Evaluated {kinds[0]} before, {kinds[1]} now: the figures are not comparable.")
    for (place, task), labels in SHOWN_FIGURES.items():
        before, now = _at(old, place), _at(new, place)
        sets = [metrics.get("datasets", {}).get(task.name) for metrics in (old, new)]
        differ = [f"it was {sets[0]}, is {sets[1]}"] if None not in sets and sets[0] != sets[1] else []
        counts = [{"num_copies_ignored": 0} | found if found else {} for found in (before, now)]
        differ += [
            f"{count} was {counts[0][count]}, is {counts[1][count]}"
            for count in _COUNTS
            if count in counts[0] and count in counts[1] and counts[0][count] != counts[1][count]
        ]
        if differ:
            notes.append(f"`{place}`: the test set differs ({'; '.join(differ)}); the figures are not comparable as they stand.")
        comparable = same_data and not differ and before_words == words
        for name, label in labels.items():
            if name in before or name in now:
                cells = with_interval(before, name), with_interval(now, name), _judge(before, now, name, comparable)
                lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "".join(f"\n\n{note}" for note in notes)


def _at(metrics: dict, place: str) -> dict:
    """Find the figures at a dotted place; empty if there are none."""
    for key in place.split("."):
        metrics = metrics.get(key) or {}
    return metrics


def _judge(before: dict, now: dict, name: str, comparable: bool) -> str:
    if name not in before or name not in now:
        return "-"
    change = now[name] - before[name]
    if abs(change) < 0.005:
        return "="
    text = f"{'▲' if change > 0 else '▼'} {signed(change)}"
    if not comparable:
        return text
    pairs = [(interval_of(now, name), before[name]), (interval_of(before, name), now[name])]
    judged = [interval[0] <= figure <= interval[1] for interval, figure in pairs if interval]
    return text + ("" if not judged else ", within the interval" if any(judged) else ", **beyond the interval**")


def changes(old: dict, new: dict) -> dict[str, tuple[str, str]]:
    """Find what differs: dotted key -> what it was and is; "-" where there is no such key."""
    before, now = flat(old), flat(new)
    keys = [*now, *(key for key in before if key not in now)]
    return {key: (before.get(key, "-"), now.get(key, "-")) for key in keys if before.get(key) != now.get(key)}


def flat(content: dict, prefix: str = "") -> dict[str, str]:
    """Flatten nested names: dotted key -> value as JSON."""
    found: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False, default=str)
    return found


def _change_table(found: dict[str, tuple[str, str]]) -> str:
    """Render a Markdown table after an empty line; empty if nothing changed."""
    if not found:
        return ""
    cells = [(f"`{key}`", *(f"`{value}`" if value != "-" else value for value in pair)) for key, pair in found.items()]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(["\n", "| key | before | now |", "|---|---|---|", *rows])


def _pictures(root: Path, repository: str, sha: str) -> list[str]:
    """Link the pictures that are there as Markdown images."""
    if repository and sha:
        status, listed, reason = ask_git(root, "ls-tree", "--name-only", sha, "--", *_PICTURES)
        if status:
            return [f"No pictures: git: {reason}"]
        held = [name for name in _PICTURES if name in listed.splitlines()]
        return [f"![{_PICTURES[name]}](https://raw.githubusercontent.com/{repository}/{sha}/{name})" for name in held]
    return [f"![{title}]({name})" for name, title in _PICTURES.items() if (root / name).is_file()]


def _same_code(root: Path, base: str) -> bool:
    """Check that what a run depends on is as in `base`, but for its data."""
    code = ("hpl", "stages", "dvc.yaml", PARAMS, "pyproject.toml", "constraints.txt", "requirements.lock")
    status, _, reason = ask_git(root, "diff", "--quiet", base, "--", *code)
    if status > 1:
        raise HplError(f"{base}: git: {reason}")
    return not status


def _parse(text: str, parse: Callable[[str], object], what: str) -> dict:
    try:
        content = parse(text)
    except (ValueError, YAMLError) as error:
        raise HplError(f"{what}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise HplError(f"{what}: holds {type(content).__name__}; expected names with values")
    return content


def _held(root: Path, base: str, name: str) -> str:
    """Read a file as a revision holds it; empty if it holds none."""
    for command in (("ls-tree", "--name-only", base, "--", name), ("show", f"{base}:./{name}")):
        status, text, reason = ask_git(root, *command)
        if status:
            raise HplError(f"{base}: {name}: git: {reason}")
        if not text:
            break
    return text


def _unknown_revision(root: Path, base: str) -> str:
    _, shallow, _ = ask_git(root, "rev-parse", "--is-shallow-repository")
    hint = "this clone is shallow: git fetch --unshallow" if shallow == "true" else "`git fetch` it, or see `git branch -a`"
    return f"{base}: git knows no such revision here; {hint}"


def _main() -> None:
    if len(sys.argv) != 2:
        raise HplError("expected one revision, such as origin/main: python -m hpl.reports.pull_request origin/main")
    # GITHUB_SHA of a pull request is a merge that exists nowhere else; the workflow names the branch's own commit.
    sha = os.environ.get("HEAD_SHA") or os.environ.get("GITHUB_SHA", "")
    print(render_comment(sys.argv[1], repository=os.environ.get("GITHUB_REPOSITORY", ""), sha=sha), end="")


if __name__ == "__main__":
    run_stage(_main)
