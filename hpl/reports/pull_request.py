"""What a change did to figures and parameters, as Markdown for a pull request: `python -m hpl.reports.pull_request origin/main`.

Compares reports/metrics.json and params.yaml of the working tree with those of a git revision.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from hpl.files import HplError, read_json, run_stage
from hpl.reports.labels import FIGURES, signed

METRICS, PARAMS = "reports/metrics.json", "params.yaml"
PICTURES = {
    "reports/figures/rank_lists_t2i.png": "Text-to-image rank lists",
    "reports/figures/rank_lists_i2i.png": "Image-to-image rank lists",
    "reports/figures/curves_train.png": "Loss curves",
}
ROWS = {  # where the figures of the table stand in METRICS -> each with its label
    "t2i": {name: f"T2I {label}" for name, label in FIGURES.items()},
    "i2i": {name: f"I2I {label}" for name, label in FIGURES.items()},
    "composed.both": {"rank1": "Composed R1", "mAP": "Composed mAP"},
    "open_set.t2i": {"detection_rate": "Strangers T2I, found"},
    "open_set.i2i": {"detection_rate": "Strangers I2I, found"},
}
COUNTS = ("num_queries", "num_known", "num_unknown")


def compare(base: str, root: Path = Path("."), repository: str = "", sha: str = "") -> str:
    """Markdown: the main figures before and after, other figures and parameters that changed, pictures.

    Args:
        base: a git revision.
        root: the project's root, in a git repository.
        repository, sha: owner/name and commit on GitHub; with both, pictures are linked where that commit holds them, else by relative path.

    Raises:
        HplError: git does not know `base`, as in a shallow clone; there are no figures to compare.
    """
    found = _git(root, "rev-parse", "--verify", "--quiet", "--short", f"{base}^{{commit}}")
    if found is None:
        raise HplError(
            f"{base}: git knows no such revision here; expected one that was fetched (shallow clone: git fetch --unshallow)"
        )
    old_metrics = json.loads(_git(root, "show", f"{base}:./{METRICS}") or "{}")
    new_metrics = read_json(root / METRICS)
    yaml = YAML(typ="safe", pure=True)
    old_params = yaml.load(_git(root, "show", f"{base}:./{PARAMS}") or "{}")
    new_params = yaml.load((root / PARAMS).read_text(encoding="utf-8"))
    sections = [f"### Against `{base}` ({found.strip()})", results_table(old_metrics, new_metrics)]
    if not old_metrics:
        sections.append(f"`{base}` holds no {METRICS}.")
    shown = {f"{place}.{name}" for place, labels in ROWS.items() for name in labels}
    others = {key: change for key, change in changes(old_metrics, new_metrics).items() if key not in shown and "_ci_" not in key}
    sections.append("**Parameters.** " + (_change_table(changes(old_params, new_params)) or "None changed."))
    if old_metrics and others:
        sections.append(
            f"<details><summary>Other figures that changed</summary>\n\n{_change_table(others).strip()}\n\n</details>"
        )
    if pictures := _pictures(root, repository, sha):
        if repository and sha:
            pictures.insert(0, f"Pictures as committed in {sha[:7]}: they may be older than the figures.")
        sections.append("\n\n".join(pictures))
    return "\n\n".join(sections) + "\n"


def results_table(old: dict, new: dict) -> str:
    """The figures of ROWS before and after, in percent, with their 95 % intervals where there are such.

    A change lies within the interval if the old figure is inside that of the new one, or the new one inside that of the old. It is
    not judged where the number of queries differs; a line below the table says so.
    """
    lines, notes = ["| percent | before | now | change |", "|---|---:|---:|---|"], []
    for place, labels in ROWS.items():
        before, now = _at(old, place), _at(new, place)
        differ = [
            f"{count} was {before[count]}, is {now[count]}"
            for count in COUNTS
            if count in before and count in now and before[count] != now[count]
        ]
        if differ:
            notes.append(f"`{place}`: the test set differs ({'; '.join(differ)}); the figures are not comparable as they stand.")
        for name, label in labels.items():
            if name in before or name in now:
                cells = _with_interval(before, name), _with_interval(now, name), _judge(before, now, name, not differ)
                lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "".join(f"\n\n{note}" for note in notes)


def _at(metrics: dict, place: str) -> dict:
    """The figures at a dotted place, empty if there are none."""
    for key in place.split("."):
        metrics = metrics.get(key) or {}
    return metrics


def _with_interval(figures: dict, name: str) -> str:
    if name not in figures:
        return "-"
    interval = _interval(figures, name)
    return f"{figures[name]:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")


def _interval(figures: dict, name: str) -> tuple[float, float] | None:
    ends = [figures.get(f"{name}_ci_{end}") for end in ("low", "high")]
    return None if None in ends else tuple(ends)


def _judge(before: dict, now: dict, name: str, comparable: bool) -> str:
    if name not in before or name not in now:
        return "-"
    change = now[name] - before[name]
    if abs(change) < 0.005:
        return "="
    text = f"{'▲' if change > 0 else '▼'} {signed(change)}"
    if not comparable:
        return text
    pairs = [(_interval(now, name), before[name]), (_interval(before, name), now[name])]
    judged = [interval[0] <= figure <= interval[1] for interval, figure in pairs if interval]
    return text + ("" if not judged else ", within the interval" if any(judged) else ", **beyond the interval**")


def changes(old: dict, new: dict) -> dict[str, tuple[str, str]]:
    """Dotted key -> what it was and is, of all that differ; "-" where there is no such key."""
    before, now = _flat(old), _flat(new)
    keys = [*now, *(key for key in before if key not in now)]
    return {key: (before.get(key, "-"), now.get(key, "-")) for key in keys if before.get(key) != now.get(key)}


def _flat(content: dict, prefix: str = "") -> dict[str, str]:
    found = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False, default=str)
    return found


def _change_table(found: dict[str, tuple[str, str]]) -> str:
    """A Markdown table after an empty line; empty if nothing changed."""
    if not found:
        return ""
    cells = [(f"`{key}`", *(f"`{value}`" if value != "-" else value for value in pair)) for key, pair in found.items()]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(["\n", "| key | before | now |", "|---|---|---|", *rows])


def _pictures(root: Path, repository: str, sha: str) -> list[str]:
    """Pictures that are there, as Markdown images."""
    if repository and sha:
        held = [name for name in PICTURES if _git(root, "cat-file", "-e", f"{sha}:./{name}") is not None]
        return [f"![{PICTURES[name]}](https://raw.githubusercontent.com/{repository}/{sha}/{name})" for name in held]
    return [f"![{title}]({name})" for name, title in PICTURES.items() if (root / name).is_file()]


def _git(root: Path, *command: str) -> str | None:
    """What git prints, or None if it says that there is no such thing."""
    done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, encoding="utf-8")
    return done.stdout if done.returncode == 0 else None


def _main() -> None:
    if len(sys.argv) != 2:
        raise HplError("expected one revision, such as origin/main: python -m hpl.reports.pull_request origin/main")
    # GITHUB_SHA of a pull request is a merge that exists nowhere else; the workflow names the branch's own commit.
    sha = os.environ.get("HEAD_SHA") or os.environ.get("GITHUB_SHA", "")
    print(compare(sys.argv[1], repository=os.environ.get("GITHUB_REPOSITORY", ""), sha=sha), end="")


if __name__ == "__main__":
    run_stage(_main)
