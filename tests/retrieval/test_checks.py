"""What parameters and data together would end or spoil hours later is said before, with numbers and the way out."""

import sys
from pathlib import Path

import pytest

from hpl.config import Params, load_params
from hpl.files import HplError
from hpl.manifests.tables import Manifests, made_with
from hpl.retrieval import checks
from hpl.retrieval.checks import check_manifests, pretraining_faults, training_faults
from tests.support.imports import ROOT
from tests.support.native_sets import CUHK, MARKET, build
from tests.support.parameters import with_profile
from tests.support.pictures import picture, save

OWN = {"format": "folders", "folder": "people", "use": ["train", "test"]}


def params(changes: dict | None = None, **train: object) -> Params:
    """The bundled parameters without pretraining, some of them changed."""
    loaded = load_params(ROOT / "params.yaml")
    profile = loaded.active
    sections = {"pretrain": profile.pretrain.model_copy(update={"epochs": 0}), "train": profile.train.model_copy(update=train)}
    return with_profile(loaded, **sections).model_copy(update=changes or {})


def people(raw: Path, *places: str, captions: bool = False, pictures: int = 2) -> Path:
    """Pictures in <split>/<person>, by cameras 0, 1, ..."""
    for seed, place in enumerate(places):
        for number in range(pictures):
            file = save(picture(100 * len(place) + 10 * seed + number), raw / "people" / place / f"{number}_c{number}.png")
            if captions:
                file.with_suffix(".txt").write_text(f"A person, {seed}.")
    return raw


def read(raw: Path, **options: object) -> Manifests:
    return build(raw, raw / "out", datasets=({**OWN, "camera_pattern": r"_c(\d)"},), **options)


def test_data_that_fit_have_no_fault_and_no_remark(tmp_path: Path) -> None:
    places = [f"train/p{number}" for number in range(16)] + ["val/v", "val/w", "test/x", "test/y"]
    tables = read(people(tmp_path, *places, captions=True, pictures=4))
    assert check_manifests(params(selection="best", patience=2), tables) == []


def test_no_captions_is_a_fault_of_the_tasks(tmp_path: Path) -> None:
    tables = read(people(tmp_path, "train/a", "train/b", "test/x"))
    with pytest.raises(HplError, match=r"tasks holds t2i, but the 4 training pictures have 0 captions; .*tasks: \[i2i\]"):
        check_manifests(params(), tables)
    assert check_manifests(params({"tasks": ["i2i"]}, i2i_batch=8), tables) == []


def test_validation_people_who_train_cannot_choose_an_epoch(tmp_path: Path) -> None:
    tables = read(people(tmp_path, "train/ann", "train/ben", "val/ann", "val/ben", "test/x", captions=True))
    faults = training_faults(params(selection="best"), tables)
    assert len(faults) == 2 and "train.selection = best needs validation people for t2i" in faults[0]
    assert "all 2 people of val, such as ann, are in training or in a test split too" in faults[1]
    assert "train.patience = 3 needs validation people for i2i" in training_faults(params(patience=3), tables)[1]
    assert training_faults(params(), tables) == []
    assert "validation does not measure t2i: all 2 people of val, such as ann" in check_manifests(params(), tables)[2]


@pytest.mark.parametrize(
    ("places", "captions", "task", "why"),
    [
        (["train/a", "train/b", "test/x"], True, "t2i", "no set that serves it has any"),
        (["train/a", "train/b", "val/v", "test/x"], False, "i2i", "none of 1 has another picture to find, by another camera"),
    ],
)
def test_validation_people_that_say_nothing_of_a_task_are_counted(
    tmp_path: Path, places: list[str], captions: bool, task: str, why: str
) -> None:
    raw = people(tmp_path, *places, captions=captions)
    for file in (raw / "people").glob("val/*/1_c1.png"):
        file.unlink()
    (fault,) = training_faults(params({"tasks": [task]}, selection="best"), read(raw))
    assert f"needs validation people for {task}, and {why}" in fault and "val_share above 0" in fault


def test_one_person_alone_is_no_training(tmp_path: Path) -> None:
    tables = read(people(tmp_path, "train/a", "train/b", "test/b", "test/x"))
    (fault,) = training_faults(params(), tables)
    assert fault.startswith("1 people are left to train on; expected two or more")


def test_more_processes_than_a_step_has_rows_are_refused_before_the_first_step(tmp_path: Path) -> None:
    tables = read(people(tmp_path, "train/a", "train/b", "test/x", captions=True))
    faults = training_faults(params({"num_processes": 6}), tables)
    assert faults == [
        "num_processes = 6, but a step has only 4 rows of profiles.bundled.train.t2i_batch; expected at most as many processes"
    ]
    assert len(training_faults(params({"num_processes": 9}), tables)) == 2 and training_faults(params(), tables) == []


def test_batches_that_cannot_be_filled_are_remarked(tmp_path: Path) -> None:
    tables = read(people(tmp_path, "train/a", "train/b", "test/x", captions=True))
    assert check_manifests(params(), tables) == [
        "profiles.bundled.train.t2i_batch = 64, but there are too few training captions: a step has 4",
        "profiles.bundled.train.i2i_batch = 64, but there are too few training people: a step has 8",
    ]
    alone = read(people(tmp_path / "alone", "train/a", "train/b", "test/x", "test/x/y", captions=True, pictures=1))
    assert "no training person has two pictures" in check_manifests(params(), alone)[-1]


def test_pretraining_without_a_caption_is_refused(cuhk: Path, market: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(CUHK, MARKET))
    (fault,) = pretraining_faults(load_params(ROOT / "params.yaml"), tables)
    assert fault.startswith("profiles.bundled.pretrain.epochs = 3, but no caption is left in the sets with use: [pretrain]")
    assert pretraining_faults(params(), tables) == []
    taught = build(tmp_path, tmp_path / "taught", datasets=({**CUHK, "use": ["pretrain"]}, MARKET))
    assert pretraining_faults(load_params(ROOT / "params.yaml"), taught) == []


def test_a_run_of_fewer_stages_is_no_fault(market: Path, tmp_path: Path) -> None:
    alone = params({"tasks": ["i2i"]}, i2i_batch=8)
    remarks = check_manifests(alone, build(tmp_path, tmp_path / "out", datasets=({**MARKET, "use": ["train"]},)))
    assert remarks == [
        "no data set has `use: [test]`: baselines, evaluate and report cannot run; `dvc repro train` stops before them"
    ]
    remarks = check_manifests(alone, build(tmp_path, tmp_path / "test", datasets=({**MARKET, "use": ["test"]},)))
    assert remarks == ["no data set has `use: [train]`: nothing after the pretrain stage can run"]


def test_a_task_that_is_trained_and_not_scored_is_remarked(cuhk: Path, market: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]}, MARKET))
    assert "t2i is trained, but no test split can be scored for it" in check_manifests(params(), tables)


def test_the_command_checks_what_was_read_with_these_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """`make check` runs it after that of the parameters."""
    tables = read(people(tmp_path, "train/a", "train/b", "test/x"))
    assert not tables.captions.size
    folder, loaded = tmp_path / "out" / "manifests", []
    monkeypatch.setattr(checks, "load_params", lambda overrides: loaded[-1])
    monkeypatch.setattr(sys, "argv", ["checks", str(folder), "tasks=[i2i]"])
    loaded.append(params())
    checks._main()
    assert "the data were not checked: preprocess has not yet read them with these parameters" in capsys.readouterr().out
    made = checks.read_json(folder / "made_with.json")
    monkeypatch.setattr(checks, "made_with", lambda of: made)
    with pytest.raises(HplError, match="tasks holds t2i"):
        checks._main()
    loaded.append(params({"tasks": ["i2i"]}))
    checks._main()
    assert "the data, as preprocess read them last, fit the parameters" in capsys.readouterr().out
    assert set(made) == set(made_with(params())) == {"profile", "data", "preprocess"}
