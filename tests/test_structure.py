"""The code keeps its shape: the direction of imports, names, sizes, and dvc.yaml's deps, which DVC itself cannot check."""

from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest
import yaml

from hpl.config import load_params
from tests.support.imports import ROOT, all_imports, direct_imports, modules, stages_of_rooms, wrong_deps
from tests.support.syntax import function_lines, imported_names, parse, public_names, string_literals

LEVELS = [
    ["files", "tasks"],
    ["config", "workers", "pictures"],
    ["runtime", "manifests", "losses", "evaluation", "backbones", "synthetic"],
    ["readers", "batches", "search"],
    ["retrieval", "reports", "web"],
    ["analysis", "prompts"],
    ["training"],
    ["ablation"],
    ["cli"],
]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
ABLATION = yaml.safe_load((ROOT / "ablation" / "dvc.yaml").read_text())
HPL, SCRIPTS = (sorted((ROOT / folder).rglob("*.py")) for folder in ("hpl", "stages"))
ROOMS = stages_of_rooms()
DOCUMENTS = [
    "README.md",
    "docs/results.md",
]  # a stage writes tables into their text: as outs, DVC would delete them before it runs
STAGES = list(PIPELINE["stages"])
ENTRIES = PIPELINE["stages"] | ABLATION["stages"]


def level(file: Path) -> int | None:
    part = file.relative_to(ROOT).with_suffix("").parts[1]
    return next((number for number, names in enumerate(LEVELS) if part in names), None)


@pytest.mark.parametrize("file", HPL, ids=lambda file: str(file.relative_to(ROOT)))
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


def test_a_public_name_is_defined_once() -> None:
    places = defaultdict(list)
    for file in HPL:
        for name in public_names(parse(file)):
            places[name].append(str(file.relative_to(ROOT)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_functions_are_short() -> None:
    lines = {
        f"{file.relative_to(ROOT)}: {name}": n for file in [*HPL, *SCRIPTS] for name, n in function_lines(parse(file)).items()
    }
    assert not {name: count for name, count in lines.items() if count > 60}
    assert median(lines.values()) <= 8


def test_a_task_is_an_object_and_seldom_a_word() -> None:
    found = [str(file.relative_to(ROOT)) for file in HPL if {"t2i", "i2i"} & string_literals(parse(file))]
    assert len(found) <= 5, found


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_modules_of_a_room_run_in_few_sets_of_stages(room: str) -> None:
    assert len(ROOMS[room]) <= 3, [sorted(stages) for stages in ROOMS[room]]


@pytest.mark.parametrize("file", sorted((ROOT / "tests").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_test_module_is_imported(file: Path) -> None:
    """Helpers are in tests/support, fixtures in conftest.py."""
    for name in imported_names(parse(file)):
        assert not name.startswith(".") and name.split(".")[0] != "conftest", name
        assert name.split(".")[0] != "tests" or name.split(".")[1] == "support", name


def test_stages_are_the_stages() -> None:
    expected = (
        "synthesize preprocess audit pretrain cache_features construct_prompts train calibrate baselines evaluate report".split()
    )
    assert STAGES == expected
    assert list(ABLATION["stages"]) == ["ablate", "sweep", "ablation_report"]
    scripts = [*expected, "ablate", "ablation_report"]
    assert [path.stem for path in SCRIPTS] == sorted(scripts)
    for file in SCRIPTS:
        assert not any("stages" in imported.parts for imported in direct_imports(file))


@pytest.mark.parametrize("stage", ENTRIES)
def test_deps_cover_the_modules_that_a_stage_imports(stage: str) -> None:
    """A folder covers all below it; a dep of which the stage imports nothing is one too many."""
    deps, script = ENTRIES[stage]["deps"], ENTRIES[stage]["cmd"].split()[1]
    assert not wrong_deps(deps, modules(ROOT / script))
    assert [dep for dep in deps if dep.startswith("stages/")] == [script]


def test_a_folder_covers_what_is_below_it_and_nothing_else() -> None:
    imported = ["hpl/config.py", "hpl/runtime/device.py", "hpl/runtimes.py"]
    assert wrong_deps(["hpl/config.py", "hpl/runtime", "hpl/runtimes.py", "data/runtime"], imported) == []
    assert wrong_deps(["hpl/config.py", "hpl/runtime/", "hpl/losses"], imported) == [
        "no dep: hpl/runtimes.py",
        "not imported: hpl/losses",
    ]
    assert wrong_deps(["hpl/runtime/curves.py", "hpl/runtimes.py", "hpl/config.py"], imported) == [
        "no dep: hpl/runtime/device.py",
        "not imported: hpl/runtime/curves.py",
    ]


@pytest.mark.parametrize("stage", ENTRIES)
def test_a_stage_gets_only_paths_that_dvc_yaml_names(stage: str) -> None:
    entry = ENTRIES[stage]
    _, script, *paths = entry["cmd"].split()
    assert script == f"stages/{ {'sweep': 'ablate'}.get(stage, stage) }.py"
    if "matrix" in entry:
        assert paths[:2] == ["${item.row}", "${item.seed}"]
        paths = paths[2:]
    named = [*entry["deps"], "ablation/dvc.lock"]  # DVC writes that one itself
    named += DOCUMENTS
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
