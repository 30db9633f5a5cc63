"""The method stands in the code: docstrings name each equation, and each decision that the paper leaves open is a parameter."""

import re
import runpy
from functools import reduce

import pytest

from hpl.config import load_params
from tests.support.imports import ROOT

PARAMS = load_params(ROOT / "params.yaml")
DECISIONS = [
    "model.i2i_token_init",
    "loss.i2i_batch",
    "prompt.id_tokens",
    "prompt.instance_tokens",
    "loss.normalize_features",
    "loss.prompt_temperature",
    "train.optimizer",
    "train.moments",
]
equations = runpy.run_path(str(ROOT / "docs" / "equations.py"))


def exists(key: str) -> bool:
    """Whether a dotted key is a parameter, of the whole or of the profile in use."""
    for section in (PARAMS, PARAMS.active):
        try:
            reduce(getattr, key.split("."), section)
            return True
        except AttributeError:
            continue
    return False


def test_every_equation_is_named_where_it_is_computed() -> None:
    named = {number for number, _, _ in equations["named_in_docstrings"]()}
    assert named == set(range(1, 15))


def test_numbers_of_equations_are_read() -> None:
    assert equations["numbers"]("Terms (eqs. 2, 10-12 and 14), not eq. 8") == {2, 8, 10, 11, 12, 14}


@pytest.mark.parametrize("key", DECISIONS)
def test_a_decision_is_a_parameter(key: str) -> None:
    assert exists(key) and f"`{key}`" in (ROOT / "docs" / "method.md").read_text()


def test_the_parameters_on_the_page_exist() -> None:
    sections = "model|prompt|loss|input|inversion|construct_prompts|train|evaluate"
    keys = re.findall(rf"`((?:{sections})\.[a-z0-9_.]+)`", (ROOT / "docs" / "method.md").read_text())
    assert len(keys) > 30 and not [key for key in keys if not exists(key)]
    assert not exists("loss.promt_reg")
