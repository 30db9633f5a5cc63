"""What pyproject.toml and CITATION.cff say of the project is so."""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions

import yaml

from tests.support.imports import ROOT
from tests.support.syntax import imported_names, parse

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PLUGINS = {"pytest-xdist"}  # named on the command line alone
THROUGH = {"python-multipart"}  # imported by Starlette, where a form is read
RUNNING = [requirement for extra in ("parquet", "qdrant", "web", "train") for requirement in EXTRAS[extra]]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    """Name the distributions of requirements such as `torch>=2.6,!=2.13.0`."""
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imported(*folders: str) -> set[str]:
    """Name the distributions whose modules are imported below the folders; of several that share a module, the first."""
    names = {
        name.split(".")[0] for folder in folders for file in (ROOT / folder).rglob("*.py") for name in imported_names(parse(file))
    }
    beside = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}  # scripts that import each other
    names -= {"hpl", "stages", "tests", "benchmarks", *beside, *sys.stdlib_module_names}
    found = packages_distributions()
    return {normal(found[name][0]) for name in names}


def test_what_the_code_imports_is_declared_and_nothing_else() -> None:
    assert imported("hpl", "stages") == declared([*PROJECT["dependencies"], *RUNNING]) - THROUGH


def test_what_tests_and_benchmarks_import_besides_is_declared() -> None:
    direct = declared([*PROJECT["dependencies"], *RUNNING])
    assert imported("tests") - direct == declared(EXTRAS["test"]) - direct - PLUGINS == declared(EXTRAS["test"]) - PLUGINS
    assert imported("benchmarks") - direct - declared(EXTRAS["test"]) == declared(EXTRAS["benchmarks"])


def test_each_declared_distribution_has_an_exact_version() -> None:
    exact = declared((ROOT / "constraints.txt").read_text().splitlines()[1:])
    extras = [requirement for extra in EXTRAS.values() for requirement in extra]
    for name in declared([*PROJECT["dependencies"], *extras]) - {"hpl-reid"}:
        assert name in exact, name


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert citation["preferred-citation"]["title"] in (ROOT / "docs" / "method.md").read_text().replace("\n", " ")
