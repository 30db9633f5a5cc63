"""params.yaml is sound, and a mistake in it is told in full."""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML, MappingNode

from hpl.config import Profile, cell_params, load_params
from hpl.files import HplError
from hpl.reports.pull_request import flat
from hpl.tasks import TASKS

PARAMS = Path(__file__).parents[1] / "params.yaml"
CONTENT = YAML(typ="safe", pure=True).load(PARAMS)  # what DVC and load_params read: `<<` resolved
PROFILES = tuple(CONTENT["profiles"])
PAPERS = ("paper-cuhk-market", "paper-icfg-msmt", "paper-rstp-duke")
ONE_KEY_A_SECTION = {
    "data.val_share": 0.25,
    "input.context_length": 32,
    "backbone.stride": 8,
    "inversion.layers": 2,
    "pretrain.weight_decay": 0.3,
    "cache_features.shard_rows": 100,
    "construct_prompts.lr_decay": 0.7,
    "train.epochs": 9,
    "evaluate.rank_list_length": 5,
}
# The resolved values of the profiles that are ours to keep; `own` and what is no profile are the user's to change. An edit of
# params.yaml changes the digests of those it reaches, the profiles that take over the edited key among them: if they are the ones
# you mean, take the new digests from the failing test.
DIGESTS = {
    "bundled": "81cce3926b38",
    "paper-cuhk-market": "4d392764e5af",
    "paper-icfg-msmt": "1224beadfce8",
    "paper-rstp-duke": "09eb4fd3302b",
}


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = PARAMS.read_text()
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    file = tmp_path / "params.yaml"
    file.write_text(text)
    return file


def test_the_papers_profiles_are_the_papers() -> None:
    params = load_params(PARAMS)
    assert params.profile == "bundled"
    for name, folders in {
        "paper-cuhk-market": ("CUHK-PEDES", "Market-1501"),
        "paper-icfg-msmt": ("ICFG-PEDES", "MSMT17"),
        "paper-rstp-duke": ("RSTPReid", "DukeMTMC-reID"),
    }.items():
        profile = params.profiles[name]
        assert profile.inversion.layers == 4
        train, construct = profile.train, profile.construct_prompts
        assert tuple(source.folder for source in profile.data.datasets) == folders
        assert all(source.official and source.use == ["train", "test"] for source in profile.data.datasets)
        assert (profile.input.height, profile.input.width, profile.input.context_length) == (384, 128, 77)
        assert profile.backbone.model == "ViT-B-16-quickgelu"
        assert (construct.epochs, construct.inversion_lr, construct.identity_lr, construct.lr_decay) == (10, 5e-5, 0.02, 0.8)
        assert (train.epochs, train.t2i_batch, train.i2i_batch, train.num_instances) == (60, 64, 64, 4)
        assert (train.start_lr, train.peak_lr, train.warmup_epochs) == (1e-6, 1e-5, 5)
    assert (params.loss.instance_align, params.loss.prompt_reg, params.loss.sdm_temperature) == (0.4, 0.06, 0.02)
    assert (params.prompt.id_tokens, params.prompt.instance_tokens) == (4, 4)


def test_no_number_of_workers_is_one_a_core() -> None:
    assert load_params(PARAMS, ["num_workers=0"]).worker_processes == len(os.sched_getaffinity(0))
    assert load_params(PARAMS, ["num_workers=3"]).worker_processes == 3


def test_every_key_has_a_comment() -> None:
    """At its first appearance, or in a comment that begins with its name: a profile that repeats a key repeats no comment."""
    seen = set()
    for number, line in enumerate(PARAMS.read_text().splitlines(), 1):
        code, mark, comment = line.partition("#")
        seen |= set(re.findall(r"(?:^|\. )(\w+): ", comment.strip())) if not code.strip() else set()
        keys = set(re.findall(r"([\w.]+): +[^\s&*{]", code)) - seen  # of values, not of sections
        assert mark or not keys, f"line {number}: {keys}"
        seen |= keys
    assert len(seen) > 80


def values() -> dict:
    """CONTENT, with no part that is the same object as another."""
    return json.loads(json.dumps(CONTENT))


def changed_by_dvc(tmp_path: Path, *overrides: str) -> Path:
    """params.yaml as `dvc exp run -S` leaves it."""
    file = tmp_path / "params.yaml"
    shutil.copy(PARAMS, file)
    apply_overrides(file, list(overrides))
    return file


def read(file: Path) -> dict:
    return YAML(typ="safe", pure=True).load(file)


def comments(file: Path) -> Counter:
    return Counter(re.findall(r"(?:^|\s)(#.*)", file.read_text(), re.MULTILINE))


def test_a_change_reaches_the_profiles_that_it_should() -> None:
    found = {name: CONTENT["profiles"][name] for name in DIGESTS}
    digests = {
        name: hashlib.sha256(json.dumps(sorted(flat(content).items())).encode()).hexdigest()[:12]
        for name, content in found.items()
    }
    assert digests == DIGESTS


def test_a_choice_is_said_once() -> None:
    """The paper's profiles are one recipe for three pairs of sets, and one's own differs in what is said of it."""
    paper, *others = (flat(CONTENT["profiles"][name]) for name in (*PAPERS, "own"))
    differing = [{key for key in paper if paper[key] != other[key]} for other in others]
    own = {"data.val_share", "input.height", "pretrain.loader_workers", "train.epochs", "train.warmup_epochs"}
    assert differing == [{"data.datasets"}, {"data.datasets"}, own | {"data.datasets", "train.loader_workers"}]


def test_what_stands_beside_a_merge_key_differs_from_what_it_takes_over() -> None:
    repeated, merged, nodes = [], 0, [YAML().compose(PARAMS)]
    while nodes:
        pairs = [(key.value, value) for key, value in nodes.pop().value]
        nodes += [value for _, value in pairs if isinstance(value, MappingNode)]
        taken_over = {key.value: value.value for name, base in pairs if name == "<<" for key, value in base.value}
        merged += bool(taken_over)
        repeated += [name for name, value in pairs if name in taken_over and value.value == taken_over[name]]
    assert not repeated and merged > 20


def test_all_faults_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    file = changed(
        tmp_path,
        ("prompt_reg: 0.06", "promt_reg: 0.06"),
        ("task_routing: true", "task_routing: maybe"),
        ("lr: 1.0e-3", "lr: fast"),
        ("\nseed: 0", "\nseed: -1"),
        ("      shard_rows", "      shard_row"),
    )
    with pytest.raises(HplError) as caught:
        load_params(file)
    message = str(caught.value)
    for part in (
        "7 faults",
        "loss.promt_reg: unknown key; did you mean loss.prompt_reg?",
        "loss.prompt_reg: missing key",
        "model.task_routing = 'maybe': expected a valid boolean",
        "profiles.bundled.pretrain.lr = 'fast': expected a valid number",
        "seed = -1: expected greater than or equal to 0",
        "profiles.bundled.cache_features.shard_row: unknown key; did you mean profiles.bundled.cache_features.shard_rows?",
    ):
        assert part in message, message


def test_a_key_in_the_wrong_section_is_found_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(HplError, match="model.prompt_temprature: unknown key; did you mean loss.prompt_temperature?"):
        load_params(changed(tmp_path, ("model:\n", "model:\n  prompt_temprature: 1.0\n")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("profile: bundled", "profile: papr", "profile = 'papr'; expected one of bundled, paper-cuhk-market"),
        ("patch_size: 16", "patch_size: 13", "patch_size = 13 does not divide input.height x width = 96 x 48"),
        ("stride: null", "stride: 17", "backbone: stride = 17 leaves gaps between patches; expected null or 1..16"),
        ("stride: null", "stride: 0", "profiles.bundled.backbone.stride = 0: expected greater than or equal to 1"),
        ("height: 96", "height: 8", "backbone.patch_size = 16 is more than a side of input.height x width = 8 x 48"),
        ("vision_heads: 4", "vision_heads: 3", "vision_heads = 3 does not divide vision_width = 128"),
        (
            "heads: 4                # attention",
            "heads: 3                # attention",
            "inversion.heads = 3 does not divide backbone.embed_dim = 128",
        ),
        ("pad: 4 ", "pad: 48 ", "train.pad = 48 is no border of input.height x width = 96 x 48; expected less"),
        (
            "id_tokens: 4",
            "id_tokens: 53",
            "prompt.instance_tokens = 4 make prompts of 65 tokens; expected at most profiles.bundled.input.context_length = 64",
        ),
        ("num_instances: 4", "num_instances: 5", "num_instances = 5 does not divide i2i_batch = 64"),
        ("folder: CUHK-PEDES", "folder: ../elsewhere", "expected a folder inside data/raw/<profile>/"),
        ("device: auto", "device: gpu", "device = 'gpu': expected the form"),
        ("- t2i\n", "- t3i\n", "tasks.0 = 't3i': expected the form '^(t2i|i2i)$'"),
    ],
)
def test_values_that_do_not_fit(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(HplError) as caught:
        load_params(changed(tmp_path, (old, new)))
    assert message in str(caught.value)


def test_overlapping_patches_need_not_divide_the_picture(tmp_path: Path) -> None:
    backbone = load_params(changed(tmp_path, ("stride: null", "stride: 12"), ("height: 96", "height: 100"))).active.backbone
    assert backbone.stride == 12 and backbone.patch_size == 16


def test_numbers_as_dvc_writes_them(tmp_path: Path) -> None:
    assert load_params(changed(tmp_path, ("lr: 1.0e-3", "lr: 1e-05"))).active.pretrain.lr == 1e-5


def test_files_that_are_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(HplError, match="file not found"):
        load_params(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,\nb: }")
    with pytest.raises(HplError, match="malformed YAML"):
        load_params(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(HplError, match="expected a mapping"):
        load_params(tmp_path / "list.yaml")


def test_changes_on_the_command_line_are_checked_like_the_file() -> None:
    params = load_params(PARAMS, ["loss.prompt_reg=0.5", "tasks=[t2i]", "profiles.bundled.train.epochs=3"])
    assert (params.loss.prompt_reg, params.tasks, params.active.train.epochs) == (0.5, ["t2i"], 3)
    with pytest.raises(HplError) as caught:
        load_params(PARAMS, ["loss.promt_reg=0.5", "seed=-1"])
    assert "loss.promt_reg: unknown key; did you mean loss.prompt_reg?" in str(caught.value) and "seed = -1" in str(caught.value)
    for wrong in ("loss.prompt_reg", "seed.x=1", "tasks=[t2i"):
        with pytest.raises(HplError, match=re.escape(wrong)):
            load_params(PARAMS, [wrong])


def test_no_section_is_the_same_object_in_two_profiles() -> None:
    """DVC would let `-S` on one profile change another, or be lost. `<<` copies a section's keys, `*` alone is the object
    itself."""
    sections = [section for profile in YAML().load(PARAMS)["profiles"].values() for section in profile.values()]
    assert len({id(section) for section in sections}) == len(sections) == len(PROFILES) * len(Profile.model_fields)


@pytest.mark.parametrize("profile", PROFILES)
def test_dvc_changes_each_section_of_one_profile_alone(profile: str, tmp_path: Path) -> None:
    """Also a section that others take over, or that is taken over whole; load_params changes the same."""
    assert {key.split(".")[0] for key in ONE_KEY_A_SECTION} == set(Profile.model_fields)
    overrides = [f"profiles.{profile}.{key}={value}" for key, value in ONE_KEY_A_SECTION.items()]
    file, expected = changed_by_dvc(tmp_path, *overrides), values()
    for key, value in ONE_KEY_A_SECTION.items():
        section, name = key.split(".")
        expected["profiles"][profile][section][name] = value
    assert read(file) == expected
    assert load_params(PARAMS, overrides) == load_params(file)


def test_dvc_keeps_comments_and_what_is_taken_over(tmp_path: Path) -> None:
    """It writes the values that `<<` takes over beside it, so that a second `-S` finds what the first left."""
    file, expected = changed_by_dvc(tmp_path, "profile=own", "loss.prompt_reg=0.5", "tasks=[t2i]"), values()
    apply_overrides(file, ["profiles.paper-cuhk-market.train.peak_lr=3e-5", "profiles.own.data.datasets.0.format=table"])
    expected |= {"profile": "own", "tasks": ["t2i"]}
    expected["loss"]["prompt_reg"] = 0.5
    expected["profiles"]["paper-cuhk-market"]["train"]["peak_lr"] = 3e-5
    expected["profiles"]["own"]["data"]["datasets"][0]["format"] = "table"
    assert read(file) == expected and load_params(file).active.data.datasets[0].format == "table"
    assert comments(file) == comments(PARAMS) and sum(comments(file).values()) > 100
    for mark in (r"<<: \*\w+", r" &\w+"):
        assert re.findall(mark, file.read_text()) == re.findall(mark, PARAMS.read_text())


def test_a_change_on_the_command_line_stays_in_its_section(tmp_path: Path) -> None:
    """Even where YAML makes a section the same object in two profiles."""
    file = changed(tmp_path, ("input: {<<: *paper_input}", "input: *paper_input"))
    before, after = load_params(file), load_params(file, ["profiles.paper-icfg-msmt.input.height=192"])
    assert after.profiles["paper-icfg-msmt"].input.height == 192
    assert all(after.profiles[name] == before.profiles[name] for name in PROFILES if name != "paper-icfg-msmt")


# Tried on DVC 3.67 with a stage as ours: `dvc repro`, `dvc exp run -S profile=<name>` and `-S profiles.<name>.<key>=...`
RUNS = ["a", "A9", "my-shop", "my_shop", "_a", "a--b", "a-", "yes", "on", "none"]
RUNS_NOT = [
    "my shop", "v1.0", "a/b", "1x", "${x}", "a$b", "-a", "123", "1e5", "0x10", "true", "NULL", "inf", "nan",
    "l\u00e4den", "a:b", "a@b", "a,b", "a=b", "a'b", "a\"b", "a&b", "a(b)", "a#b", "a[b]", "a;b", "a*b", "", " a",
    "a\n", "..", 1, 1.5, None,
]  # fmt: skip


def with_profiles_named(tmp_path: Path, names: list, used: object) -> Path:
    content = values()
    content["profile"] = used
    content["profiles"] |= {name: content["profiles"]["bundled"] for name in names}
    YAML().dump(content, tmp_path / "params.yaml")
    return tmp_path / "params.yaml"


def test_a_profile_may_be_called_what_dvc_can_run(tmp_path: Path) -> None:
    assert set(RUNS) <= set(load_params(with_profiles_named(tmp_path, RUNS, used=RUNS[-1])).profiles)


def test_a_name_that_dvc_cannot_run_is_refused_with_the_form(tmp_path: Path) -> None:
    """Each key of `profiles`, whether it is used or not, and `profile` itself, in a line each."""
    said = "is no name of a profile that DVC can run; expected the form ^[A-Za-z_][A-Za-z0-9_-]*$, such as my-shop"
    for used in ("my shop", 1, None):
        with pytest.raises(HplError) as caught:
            load_params(with_profiles_named(tmp_path, RUNS_NOT, used))
        _, *lines = str(caught.value).splitlines()
        assert len(lines) == 1 + len(RUNS_NOT) and all(said in line for line in lines)
        assert lines[0].startswith(f"  profile: {used!r} {said}")
        assert all(any(f": {name!r} {said}" in line for line in lines[1:]) for name in RUNS_NOT)


def test_tasks_are_those_that_there_are() -> None:
    assert load_params(PARAMS).tasks == list(TASKS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use": ["pretrain", "train"]}, r"use = .*expected \[train\], \[test\], \[train, test\] or \[pretrain\]"),
        ({"use": ["train", "train"]}, "use = "),
        ({"camera_pattern": r"_c(\d+)"}, "camera_pattern is for format folders, not cuhk-pedes"),
        ({"format": "folders", "camera_pattern": r"_c\d+"}, "expected one group"),
        ({"format": "folders", "camera_pattern": "("}, "camera_pattern = "),
        ({"folder": "../elsewhere"}, "expected a folder inside data/raw/"),
        ({"name": "Market-1501"}, "expected each name once"),
        ({"name": "a|b"}, "the data set is called 'a|b'"),
        ({"folder": "$x$"}, "expected a `name` of letters"),
        ({"format": "cuhk"}, "format = 'cuhk': expected 'cuhk-pedes'"),
    ],
)
def test_a_bad_data_set_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    yaml = YAML()
    content = yaml.load(PARAMS)
    content["profiles"]["bundled"]["data"]["datasets"][0].update(changes)
    yaml.dump(content, tmp_path / "params.yaml")
    with pytest.raises(HplError, match=message) as caught:
        load_params(tmp_path / "params.yaml")
    assert "datasets" in str(caught.value)


def test_a_row_changes_what_it_names_and_nothing_else() -> None:
    params = load_params(PARAMS)
    cell = cell_params(params, "t2i_only", 3)
    assert (cell.model.task_routing, cell.prompt.enabled, cell.tasks, cell.seed) == (False, False, ["t2i"], 3)
    assert cell.loss == params.loss and cell.active == params.active
    assert cell_params(params, "hpl_cmpr", params.seed) == params
    assert cell_params(params, "align_20", 0).loss.instance_align == 0.2
    with pytest.raises(HplError, match=r"ablation.rows.hpll: no such row; expected one of baseline, trt"):
        cell_params(params, "hpll", 0)
    with pytest.raises(HplError, match="seed = -1: expected greater than or equal to 0"):
        cell_params(params, "hpl", -1)


def test_cells_are_rows_by_seeds_and_sweeps_by_theirs() -> None:
    ablation = load_params(PARAMS).ablation
    assert len(ablation.cells) == len(ablation.rows) * len(ablation.seeds) + len(ablation.sweeps) * len(ablation.sweep_seeds)
    assert ("baseline", 4) in ablation.cells and ("reg_08", 0) in ablation.cells and ("reg_08", 1) not in ablation.cells


@pytest.mark.parametrize(
    ("group", "name", "changes", "messages"),
    [
        ("rows", "a", {"loss.promt_reg": 0.1}, ["ablation.rows.a: loss.promt_reg: unknown key; did you mean loss.prompt_reg?"]),
        ("sweeps", "a", {"prompt.enabled": "no"}, ["ablation.sweeps.a: prompt.enabled = 'no': expected a valid boolean"]),
        (
            "rows",
            "a",
            {"profiles.bundled.train.num_instances": 5, "loss.prompt_reg": -1.0},
            [
                "ablation.rows.a: profiles.bundled.train: num_instances = 5 does not divide",
                "loss.prompt_reg = -1.0: expected greater",
            ],
        ),
        (
            "rows",
            "a",
            {"seed": 4},
            ["ablation.rows.a: seed: the same in all cells; expected a key of tasks, model, prompt, loss"],
        ),
        ("rows", "a", {"profiles.bundled.input.height": 48}, ["profiles.bundled.input.height: the same in all cells"]),
        ("rows", "a", {"tasks.x": 1}, ["ablation.rows.a: tasks.x=1: tasks is a value, not a section"]),
        ("rows", "a-b", {}, ["a-b"]),
        ("rows", "a", [1], ["ablation.rows.a = [1]: expected a valid dictionary"]),
        ("sweeps", "hpl", {}, ["rows and sweeps both hold hpl; expected different names"]),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, group: str, name: str, changes: object, messages: list[str]) -> None:
    yaml = YAML()
    content = yaml.load(PARAMS)
    content["ablation"][group][name] = changes
    yaml.dump(content, tmp_path / "params.yaml")
    with pytest.raises(HplError) as caught:
        load_params(tmp_path / "params.yaml")
    assert f"{len(messages)} fault" in str(caught.value)
    for message in messages:
        assert message in str(caught.value), str(caught.value)


def test_a_fault_of_all_rows_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(HplError, match="1 fault\n"):
        load_params(changed(tmp_path, ("prompt_reg: 0.06", "prompt_reg: -0.06")))
    with pytest.raises(HplError, match=r"seeds = \[0, 1, 1, 3, 4\]; expected each seed once"):
        load_params(changed(tmp_path, ("  - 2\n  - 3", "  - 1\n  - 3")))
