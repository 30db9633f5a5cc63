"""Which function of hpl computes which equation of the paper, as the docstrings themselves say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HPL = Path(__file__).resolve().parent.parent / "hpl"


def numbers(text: str) -> set[int]:
    """Read the numbers after "eq." or "eqs.": "eqs. 2, 10-12 and 14"."""
    found = set()
    for listed in re.findall(r"\beqs?\. (\d+(?:(?:-|, | and | to )\d+)*)", text):
        for first, last in re.findall(r"(\d+)(?:(?:-| to )(\d+))?", listed):
            found |= set(range(int(first), int(last or first) + 1))
    return found


def named_in_docstrings() -> Iterator[tuple[int, str, str]]:
    """Yield (equation, dotted name, first line) of what in hpl has a docstring that names an equation of the paper."""
    for file in sorted(HPL.rglob("*.py")):
        module = ".".join(file.relative_to(HPL.parent).with_suffix("").parts)
        for name, node in _public(ast.parse(file.read_text(encoding="utf-8")), module):
            text = ast.get_docstring(node) or ""
            for number in sorted(numbers(re.sub(r"IRRA[^;]*eqs?\. [\d-]+", "", text))):  # IRRA's own numbers
                yield number, name, text.splitlines()[0]


def _public(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{prefix}.{node.name}")


def table() -> str:
    """Write the table of docs/method.md."""
    rows = ["| eq. | what computes it | in its own words |", "|---|---|---|"]
    for number, name, line in sorted(named_in_docstrings()):
        line = line.replace("|", "\\|").replace("*", "\\*")
        rows.append(f"| {number} | {{py:obj}}`{name.rsplit('.', 1)[-1]} <{name}>` | {line} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
