"""docs/method.md holds: its functions, keys, defaults and tests exist, and no equation and no choice of the method is missing."""

import ast
import importlib
import re
from functools import reduce

import pytest
import yaml

from tests.support.imports import ROOT

PAGE = ROOT / "docs" / "method.md"
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
PAPERS = [name for name in PARAMS["profiles"] if name.startswith("paper-")]
METHOD_SECTIONS = ("model", "prompt", "loss", "inversion", "construct_prompts", "train")
NOT_METHOD = {"train.loader_workers"}  # changes no output

LINK = re.compile(r"\[`([^`]+)`\]\(([^)]+)\)")
VALUE = r"(\[[^\]]*\]|[^\s,|()]+)"
PARAMETER = re.compile(rf"`([a-z0-9_]+(?:\.[a-z0-9_]+)*)` = {VALUE}(?: \(bundled {VALUE}\))?")


def tables() -> dict[str, list[list[str]]]:
    """Cells of the rows of all tables, by the heading above them; header rows are left out."""
    found: dict[str, list[list[str]]] = {}
    heading, previous = "", ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|") and not line.startswith("|---"):
            found.setdefault(heading, []).append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        if line.startswith("|---"):
            assert previous.count("|") == line.count("|")
            found[heading].pop()  # the header
        previous = line
    return found


TABLES = tables()
ROWS = [row for rows in TABLES.values() for row in rows]
LINKS = [link for row in ROWS for cell in row for link in LINK.findall(cell)]
EQUATIONS = TABLES["Equations"]
CHOICES = [match for row in ROWS for cell in row for match in PARAMETER.findall(cell)]


def located(name: str, path: str) -> object:
    """The object that a link into hpl/ names."""
    module = importlib.import_module(path.removeprefix("../").removesuffix(".py").replace("/", "."))
    return reduce(getattr, name.split("."), module)


def equations_named(text: str | None) -> set[int]:
    """Numbers after "eq." or "eqs.": "eqs. 2, 10-12 and 14"."""
    named = set()
    for numbers in re.findall(r"\beqs?\. (\d+(?:(?:-|, | and | to )\d+)*)", text or ""):
        for first, last in re.findall(r"(\d+)(?:(?:-| to )(\d+))?", numbers):
            named |= set(range(int(first), int(last or first) + 1))
    return named


def value_of(key: str, profile: str | None) -> object:
    inside = PARAMS if key.split(".")[0] in PARAMS else PARAMS["profiles"][profile]
    return reduce(lambda section, part: section[part], key.split("."), inside)


def read_value(text: str) -> object:
    """As in params.yaml, but 5e-5 is a number without a dot."""
    try:
        return float(text)
    except ValueError:
        return yaml.safe_load(text)


def test_every_equation_has_a_function_and_a_test() -> None:
    assert sorted({int(row[0]) for row in EQUATIONS}) == list(range(1, 15))
    for number, _, functions, _, tests in EQUATIONS:
        assert all(path.startswith("../hpl/") for _, path in LINK.findall(functions)) and LINK.findall(functions), number
        assert all(path.startswith("../tests/") for _, path in LINK.findall(tests)) and LINK.findall(tests), number


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: f"{row[0]}-{LINK.findall(row[2])[0][0]}")
def test_a_functions_docstring_gives_the_number_of_its_equation(row: list[str]) -> None:
    for name, path in LINK.findall(row[2]):
        found = located(name, path)
        named = equations_named(found.__doc__)
        assert int(row[0]) in named, f"{name}: {found.__doc__}"


@pytest.mark.parametrize(("name", "path"), sorted(set(LINKS)), ids=lambda part: part.split("/")[-1])
def test_what_a_link_names_exists(name: str, path: str) -> None:
    file = (PAGE.parent / path).resolve()
    assert file.is_file(), path
    if path.startswith("../hpl/"):
        assert located(name, path) is not None
    else:
        assert name.startswith("test_") and file.name.startswith("test_")
        functions = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
        assert functions.count(name) == 1, f"{path} has no {name}, or two of them"


@pytest.mark.parametrize(("key", "default", "bundled"), sorted(set(CHOICES)), ids=lambda part: part)
def test_a_default_is_that_of_params_yaml(key: str, default: str, bundled: str) -> None:
    for profile in PAPERS:
        assert read_value(default) == value_of(key, profile), profile
    assert read_value(bundled or default) == value_of(key, "bundled"), "bundled"


def test_no_choice_of_the_method_is_missing() -> None:
    named = {key for key, _, _ in CHOICES}
    sections = {section: PARAMS.get(section) or PARAMS["profiles"]["bundled"][section] for section in METHOD_SECTIONS}
    expected = {f"{section}.{key}" for section, keys in sections.items() for key in keys} | {"tasks"}
    assert expected - named == NOT_METHOD


def test_links_outside_the_tables_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target


def test_the_page_is_read_at_all() -> None:
    assert len(EQUATIONS) >= 14 and len(LINKS) > 50 and len(CHOICES) > 40 and len(TABLES) == 4
    assert equations_named("Terms (eqs. 2, 10-12 and 14), not eq. 8") == {2, 8, 10, 11, 12, 14}
    assert PARAMETER.findall("`a.b` = 5e-5 (bundled 1e-3), `tasks` = [t2i, i2i]") == [
        ("a.b", "5e-5", "1e-3"),
        ("tasks", "[t2i, i2i]", ""),
    ]
