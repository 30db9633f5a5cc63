"""The code keeps its shape: the direction of imports, and dvc.yaml's deps, which DVC itself cannot check."""

from pathlib import Path

import pytest
import yaml

from hpl.config import load_params
from tests.support.imports import ROOT, all_imports, dependencies, direct_imports

LEVELS = [
    ["files", "tasks"],
    ["config"],
    ["runtime", "manifests", "losses", "evaluation", "backbones", "synthetic"],
    ["readers", "batches"],
    ["retrieval", "reports"],
    ["analysis", "prompts"],
    ["training"],
    ["ablation"],
]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
ABLATION = yaml.safe_load((ROOT / "ablation" / "dvc.yaml").read_text())
STAGES = list(PIPELINE["stages"])
ENTRIES = PIPELINE["stages"] | ABLATION["stages"]


def level(file: Path) -> int | None:
    part = file.relative_to(ROOT).with_suffix("").parts[1]
    return next((number for number, names in enumerate(LEVELS) if part in names), None)


@pytest.mark.parametrize("file", sorted((ROOT / "hpl").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_left_of_it(file: Path) -> None:
    if file == ROOT / "hpl" / "__init__.py":
        return
    own = file.relative_to(ROOT).with_suffix("").parts[1]
    assert level(file) is not None, f"{file} stands in no level; add its package to LEVELS"
    for imported in direct_imports(file):
        parts = imported.relative_to(ROOT).with_suffix("").parts
        assert parts[0] != "stages", f"{file} imports a stage"
        if imported.name == "__init__.py" or parts[1] == own:
            continue
        assert level(imported) < level(file), f"{file} imports {imported}"


def test_reports_and_evaluation_import_neither_torch_nor_training() -> None:
    for package in ("reports", "evaluation"):
        for file in (ROOT / "hpl" / package).rglob("*.py"):
            for reached in {file, *all_imports(file)}:
                assert "import torch" not in reached.read_text() and "from torch" not in reached.read_text(), reached
                assert "training" not in reached.parts


def test_stages_are_the_stages() -> None:
    expected = "synthesize preprocess audit pretrain cache_features construct_prompts train baselines evaluate report".split()
    assert STAGES == expected
    assert list(ABLATION["stages"]) == ["ablate", "sweep", "ablation_report"]
    scripts = [*expected, "ablate", "ablation_report"]
    assert sorted(path.stem for path in (ROOT / "stages").glob("*.py")) == sorted(scripts)
    for file in (ROOT / "stages").glob("*.py"):
        assert not any("stages" in imported.parts for imported in direct_imports(file))


@pytest.mark.parametrize("stage", ENTRIES)
def test_deps_cover_the_modules_that_a_stage_imports(stage: str) -> None:
    """A directory covers all below it; a dep of which the stage imports nothing is one too many."""
    code = {dep for dep in ENTRIES[stage]["deps"] if dep.startswith(("hpl", "stages"))}
    imported = dependencies(ROOT / ENTRIES[stage]["cmd"].split()[1])
    assert all(any(file == dep or file.startswith(f"{dep}/") for dep in code) for file in imported)
    assert all(any(file == dep or file.startswith(f"{dep}/") for file in imported) for dep in code)


@pytest.mark.parametrize("stage", ENTRIES)
def test_a_stage_gets_only_paths_that_dvc_yaml_names(stage: str) -> None:
    entry = ENTRIES[stage]
    _, script, *paths = entry["cmd"].split()
    assert script == f"stages/{ {'sweep': 'ablate'}.get(stage, stage) }.py"
    if "matrix" in entry:
        assert paths[:2] == ["${item.row}", "${item.seed}"]
        paths = paths[2:]
    named = [*entry["deps"], "ablation/dvc.lock"]  # DVC writes that one itself
    for kind in ("outs", "metrics", "plots"):
        named += [next(iter(item)) if isinstance(item, dict) else item for item in entry.get(kind, [])]
    for path in paths:
        assert any(name == path or name.startswith(path + "/") for name in named), path
    assert not any("data/" in line for line in (ROOT / script).read_text().splitlines())


def test_a_cell_depends_on_what_the_stages_in_it_depend_on() -> None:
    """Their parameters, but the seed, which is the cell's, and how many processes share the work: a cell is one."""
    parts = ["cache_features", "construct_prompts", "train", "evaluate"]
    wanted = {key for stage in parts for key in PIPELINE["stages"][stage]["params"]} - {"seed", "num_processes"}
    for name in ("ablate", "sweep"):
        declared = set(ENTRIES[name]["params"])
        assert all(key in declared or key.rpartition(".")[0] in declared for key in wanted), wanted - declared
    assert ENTRIES["sweep"]["deps"] == ENTRIES["ablate"]["deps"]


@pytest.mark.parametrize("profile", list(load_params(ROOT / "params.yaml").profiles))
def test_declared_parameters_exist_in_every_profile(profile: str) -> None:
    params = load_params(ROOT / "params.yaml")
    for stage in ENTRIES.values():
        for key in stage["params"]:
            value = params
            for part in key.replace("${profile}", profile).removesuffix(".${item.row}").split("."):
                value = value[part] if isinstance(value, dict) else getattr(value, part)
