"""A run that is stopped and started again ends with the bits of one that was not."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hpl.backbones.towers import TextTower, frozen_copy
from hpl.batches.loading import TrainingData
from hpl.config import Cache, Inversion, load_params
from hpl.files import HplError
from hpl.manifests.tables import Manifests
from hpl.prompts.cache import FeatureCache, cache_features
from hpl.prompts.construct import construct_prompts
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint, work_key
from hpl.training.pretrain import pretrain
from hpl.training.train import train
from tests.support.native_sets import CUHK, MARKET, build
from tests.support.parameters import with_profile
from tests.support.tiny import SIZE, fresh_clip

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PROFILE = PARAMS.active
CPU, INVERSION = torch.device("cpu"), Inversion(layers=1, heads=2)


class Killed(Exception):
    pass


class KilledAfter(Checkpoint):
    """Saves after each step and stops the run after so many saves and blocks."""

    def __init__(self, folder: Path, writes: int) -> None:
        super().__init__(folder, 0)
        self.writes_left = writes

    def _write(self, file: Path, write: Callable) -> None:
        super()._write(file, write)
        self.writes_left -= 1
        if not self.writes_left:
            raise Killed


@pytest.fixture
def world(cuhk: Path, market: Path, tmp_path: Path) -> Path:
    """Manifests, packed pictures and cached features of a few people."""
    pretraining = {**CUHK, "name": "pretrain", "use": ["pretrain"]}
    build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]}, {**MARKET, "use": ["train"]}))
    build(tmp_path, tmp_path / "pre", datasets=(pretraining,))
    features(tmp_path, NOTHING_KEPT, tmp_path / "features")
    return tmp_path


def data(folder: Path) -> TrainingData:
    return TrainingData(Manifests(folder / "manifests"), folder / "pictures")


def features(world: Path, checkpoint: Checkpoint, folder: Path) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    params = with_profile(PARAMS, cache_features=Cache(batch_size=2, shard_rows=3), input=SIZE)
    cache_features(fresh_clip(), data(world / "out"), params, folder, CPU, checkpoint)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def tensors(module: torch.nn.Module, curves: object) -> dict[str, bytes]:
    state = {name: value.numpy().tobytes() for name, value in module.state_dict().items()}
    return {**state, "curves": pd.DataFrame(curves.rows).to_csv().encode()}


def pretrained(world: Path, checkpoint: Checkpoint) -> dict[str, bytes]:
    clip, options = fresh_clip(), PROFILE.pretrain.model_copy(update={"epochs": 2, "batch_size": 2, "loader_workers": 0})
    curves = pretrain(clip, data(world / "pre"), with_profile(PARAMS, pretrain=options, input=SIZE), CPU, checkpoint)
    return tensors(clip, curves)


def constructed(world: Path, checkpoint: Checkpoint) -> dict[str, bytes]:
    options = PROFILE.construct_prompts.model_copy(update={"epochs": 3, "batch_size": 2})
    torch.manual_seed(1)
    tower = frozen_copy(TextTower(fresh_clip()))
    params = with_profile(PARAMS, construct_prompts=options, inversion=INVERSION)
    return tensors(*construct_prompts(FeatureCache(world / "features"), tower, params, CPU, checkpoint))


def chosen(world: Path, checkpoint: Checkpoint) -> dict[str, bytes]:
    """The best epoch on validation, which is not the last at such a rate: its weights have to survive."""
    return trained(world, checkpoint, tasks=["t2i"], selection="best", epochs=3, start_lr=0.0, peak_lr=1e-2, warmup_epochs=0)


def trained(world: Path, checkpoint: Checkpoint, tasks: Sequence[str] = ("t2i", "i2i"), **more: object) -> dict[str, bytes]:
    changes = {"epochs": 2, "t2i_batch": 2, "i2i_batch": 4, "num_instances": 2, "loader_workers": 0, "pad": 1, **more}
    torch.manual_seed(1)
    options = PROFILE.construct_prompts.model_copy(update={"epochs": 1, "batch_size": 4})
    sections = {"construct_prompts": options, "inversion": INVERSION, "train": PROFILE.train.model_copy(update=changes)}
    params = with_profile(PARAMS, **sections, input=SIZE).model_copy(update={"tasks": list(tasks)})
    prompts, _ = construct_prompts(FeatureCache(world / "features"), frozen_copy(TextTower(fresh_clip())), params, CPU)
    model, curves, _ = train(fresh_clip(), prompts, data(world / "out"), params, CPU, checkpoint)
    return tensors(model, curves)


@pytest.mark.parametrize("stage", [pretrained, constructed, trained, chosen])
def test_stopped_after_any_step_it_ends_with_the_same_bits(world: Path, stage: Callable) -> None:
    whole = stage(world, NOTHING_KEPT)
    stops = 0
    for writes in range(1, 100):
        try:
            with KilledAfter(world / "state", writes) as checkpoint:
                stage(world, checkpoint)
            break  # the run had fewer steps
        except Killed:
            stops += 1
        with Checkpoint(world / "state", 0) as checkpoint:
            assert stage(world, checkpoint) == whole
        assert not (world / "state").exists()  # success leaves nothing behind
    assert stops >= 4


def test_stopped_again_and_again_it_ends_with_the_same_bits(world: Path) -> None:
    whole, stops = trained(world, NOTHING_KEPT), 0
    while True:
        try:
            with KilledAfter(world / "state", 1) as checkpoint:
                assert trained(world, checkpoint) == whole
            break
        except Killed:
            stops += 1
            assert stops < 50
    assert stops >= 4


def test_cached_features_go_on_after_the_last_block(world: Path, tmp_path: Path) -> None:
    whole = features(world, NOTHING_KEPT, tmp_path / "whole")
    with pytest.raises(Killed), KilledAfter(tmp_path / "state", 3) as checkpoint:
        features(world, checkpoint, tmp_path / "stopped")
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "state").glob("*.npy")}
    assert len(kept) == 3
    with KilledAfter(tmp_path / "state", 1000) as checkpoint:
        assert features(world, checkpoint, tmp_path / "again") == whole
        assert {name: (tmp_path / "state" / name).stat().st_mtime_ns for name in kept} == kept  # not computed again


def test_two_runs_of_the_same_are_refused(tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "state", 0), pytest.raises(HplError, match="going on in another process"):
        with Checkpoint(tmp_path / "state", 0):
            pass


def test_a_dead_process_leaves_no_lock(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from hpl.runtime.checkpoint import Checkpoint\n"
    code += "Checkpoint(Path(sys.argv[1]), 0).__enter__(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "state")], cwd=Path(__file__).parents[2])
    assert (tmp_path / "state" / "lock").is_file()
    with Checkpoint(tmp_path / "state", 0):
        pass


def test_half_a_file_never_counts_and_the_last_state_survives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.nn.Linear(2, 2)
    with pytest.raises(
        HplError, match="state.pt: cannot be written .*No space left.*; is the disk full. What was saved before is still there"
    ):
        with Checkpoint(tmp_path / "state", 0) as checkpoint:
            checkpoint.save(1, 5, model=weight)

            def full(state: object, file: object) -> None:
                file.write(b"half")
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(torch, "save", full)
            checkpoint.save(1, 6, model=weight)
    monkeypatch.undo()
    (tmp_path / "state" / "pictures-0.npy.partial").write_bytes(b"half")
    with Checkpoint(tmp_path / "state", 0) as checkpoint:
        assert checkpoint.load(model=torch.nn.Linear(2, 2)) == (1, 5)
        np.testing.assert_array_equal(checkpoint.block("pictures-0", lambda: np.ones(3)), np.ones(3))


@pytest.mark.parametrize("at", [0, 200, -40, -1], ids=["first byte", "inside", "last of the content", "in the hash"])
@pytest.mark.parametrize("what", ["state.pt", "pictures-0.npy"])
def test_a_damaged_file_is_named_and_computed_anew(what: str, at: int, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(Killed), Checkpoint(tmp_path / "state", 0) as checkpoint:
        checkpoint.save(3, 2, model=torch.nn.Linear(8, 8))
        checkpoint.block("pictures-0", lambda: np.arange(64.0))
        raise Killed
    file = tmp_path / "state" / what
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    for damaged in (bytes(data), bytes(data[:-7]), b""):
        file.write_bytes(damaged)
        with pytest.raises(Killed), Checkpoint(tmp_path / "state", 0) as checkpoint:
            found = checkpoint.load(model=torch.nn.Linear(8, 8)), checkpoint.block("pictures-0", lambda: np.zeros(2)).tolist()
            raise Killed
        expected = ((1, 0), list(range(64))) if what == "state.pt" else ((3, 2), [0, 0])
        assert found == expected
        assert f"{file}: damaged, so not used: what it kept is computed anew" in capsys.readouterr().err
    if what != "state.pt":  # computed anew, it is kept again
        with Checkpoint(tmp_path / "state", 0) as checkpoint:
            assert checkpoint.block("pictures-0", lambda: np.ones(2)).tolist() == [0, 0]


def test_saves_wait_for_their_time(tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "state", 3600) as checkpoint:
        checkpoint.save(1, 1, model=torch.nn.Linear(2, 2))
        assert not checkpoint.file.exists()


def test_other_parameters_inputs_or_code_are_another_run(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    key = work_key([tmp_path], PARAMS.loss, 1)
    assert key == work_key([tmp_path], PARAMS.loss, 1)
    assert key != work_key([tmp_path], PARAMS.loss, 2) and key != work_key([tmp_path], PARAMS.model, 1)
    (tmp_path / "a").write_bytes(b"2")
    assert key != work_key([tmp_path], PARAMS.loss, 1)
