"""params.yaml is sound, and a mistake in it is told in full."""

import os
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from hpl.config import cell_params, load_params
from hpl.files import HplError

PARAMS = Path(__file__).parents[1] / "params.yaml"


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
    """At its first appearance: a profile that repeats a key need not repeat its comment."""
    seen = set()
    for number, line in enumerate(PARAMS.read_text().splitlines(), 1):
        key = line.split("#")[0].strip().rstrip(":").split(":")[0]
        if line.lstrip().startswith(("#", "-", "<<")) or not key or key in seen:
            continue
        seen.add(key)
        container = line.split("#")[0].rstrip().endswith(":")
        assert "#" in line or container, f"line {number}: {key}"


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
        ("num_instances: 4", "num_instances: 5", "num_instances = 5 does not divide i2i_batch = 64"),
        ("folder: CUHK-PEDES", "folder: ../elsewhere", "expected a folder inside data/raw/<profile>/"),
        ("device: auto", "device: gpu", "device = 'gpu': expected the form"),
        ("- t2i\n", "- t3i\n", "expected 't2i' or 'i2i'"),
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


def test_profiles_share_nothing() -> None:
    """A YAML alias would let `-S` on one profile change another, or be lost."""
    assert not any(mark in line.split("#")[0] for line in PARAMS.read_text().splitlines() for mark in ("&", "*", "<<"))
    profiles = load_params(PARAMS).profiles
    papers = [profile.model_dump(exclude={"data"}) for name, profile in profiles.items() if name.startswith("paper-")]
    assert len(papers) == 3 and papers[0] == papers[1] == papers[2]


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
