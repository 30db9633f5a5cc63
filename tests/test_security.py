"""What SECURITY.md promises, where the source alone shows it: no code from files, no network unasked."""

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest
import yaml

from tests.support.imports import ROOT
from tests.support.syntax import parse

FILES = sorted(file for folder in ("hpl", "stages") for file in (ROOT / folder).rglob("*.py"))
NETWORK = {"requests", "urllib", "urllib3", "socket", "http", "httpx", "aiohttp", "ftplib", "huggingface_hub", "ssl"}
CODE = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "importlib.util", "yaml"}
NEVER = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.jit.load", "torch.hub.load", "pd.read_pickle"}
NEVER |= {"pickle.load", "pickle.loads", "pickle.Unpickler"}
MAY = {  # file -> what only this one may use, and why it does no harm
    "hpl/backbones/weight_files.py": {"pickle"},  # a subclass whose find_class knows a fixed list of stand-ins
    "hpl/workers.py": {"pickle", "pickle.loads"},  # what the project's own processes send each other through pipes
    "hpl/backbones/weights.py": {"http"},  # the name of an exception of open_clip's download, which a parameter allows
    "hpl/web/address.py": {"urllib"},  # urllib.parse: addresses are written, none is opened
    "hpl/web/guard.py": {"urllib", "http"},  # urllib.parse and http.cookies read what a request says
    "hpl/web/server.py": {"socket"},  # `hpl serve` listens, on this machine alone unless told otherwise
}


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def forbidden(tree: ast.Module, allowed: set[str] = frozenset()) -> list[str]:
    """Say what in a module could run code from a file, or reach the network."""
    found = [name for name in modules(tree) if {name, name.split(".")[0]} & (NETWORK | CODE) - allowed]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {key.arg: getattr(key.value, "value", None) for key in node.keywords}
        if name in NEVER - allowed:
            found.append(name)
        if name == "torch.load" and given.get("weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if name.endswith("np.load") and given.get("allow_pickle"):
            found.append("np.load with allow_pickle")
        if name == "YAML" and given.get("typ") not in ("safe", None):
            found.append(f"YAML of type {given['typ']}")
        if given.get("shell"):
            found.append(f"{name} through a shell")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_runs_code_from_a_file_or_reaches_the_network(file) -> None:
    assert not forbidden(parse(file), MAY.get(str(file.relative_to(ROOT)), set()))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(x)", "torch.load(x, weights_only=False)", "import pickle", "from urllib.request import urlopen",
        "np.load(x, allow_pickle=True)", "YAML(typ='unsafe').load(x)", "import yaml\nyaml.load(x)", "eval(x)",
        "torch.jit.load(x)", "subprocess.run(x, shell=True)", "import http.client",
    ],
)  # fmt: skip
def test_the_search_finds(source: str) -> None:
    assert forbidden(ast.parse(source))


def test_the_search_lets_pass() -> None:
    assert not forbidden(ast.parse("torch.load(x, weights_only=True); np.load(x); subprocess.run([x]); YAML(typ='safe').load(x)"))


def test_download_is_asked_for_by_a_parameter_alone() -> None:
    """The one function that fetches weights stands behind `backbone.download`, which a clone's profile does not set."""
    callers = [file for file in FILES if "download_pretrained" in file.read_text()]
    assert [str(file.relative_to(ROOT)) for file in callers] == ["hpl/backbones/weights.py"]
    source = callers[0].read_text()
    assert source.index("if not choice.download:") < source.index("open_clip.download_pretrained(")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert not params["profiles"][params["profile"]]["backbone"].get("download")


# Supply chain


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


def test_the_lock_has_the_constraints_and_a_hash_of_each() -> None:
    lock, constraints = (ROOT / "requirements.lock").read_text(), pins((ROOT / "constraints.txt").read_text())
    locked = pins(lock)
    assert {name: locked.get(name) for name in constraints} == constraints
    assert set(locked) - set(constraints) == {"setuptools"}  # which builds the project itself
    for entry in re.split(r"\n(?=[\w.-]+==)", lock)[1:]:
        hashes = re.findall(r"--hash=(\S+)", entry)
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), entry


def test_the_lock_builds_with_what_the_project_asks_for() -> None:
    (requirement,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    least = int(re.fullmatch(r"setuptools>=(\d+)", requirement)[1])
    assert int(pins((ROOT / "requirements.lock").read_text())["setuptools"].split(".")[0]) >= least


def test_workflows_have_least_permissions() -> None:
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {}, "a job asks for what it needs"
        for name, job in workflow["jobs"].items():
            writes = {key for key, value in job["permissions"].items() if value == "write"}
            assert writes <= {"pull-requests"} and len(writes) * len(job["steps"]) <= 3, (
                f"{name} writes in more steps than it must"
            )
            for step in job["steps"]:
                assert "continue-on-error" not in step
                if step.get("uses", "").startswith("actions/checkout"):
                    assert step["with"]["persist-credentials"] is False
                assert not re.search(r"\$\{\{[^}]*(github\.event|head_ref|base_ref|inputs)", step.get("run", "")), (
                    "text of others in a script"
                )


def test_dependabot_looks_after_actions_and_packages() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {each["package-ecosystem"] for each in updates} == {"github-actions", "pip"}


def test_actions_are_pinned_by_commit() -> None:
    text = (ROOT / ".github" / "workflows" / "hpl.yml").read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", each) for each in used), used
