"""Two gloo processes give what one gives: losses, gradients, ten steps, features, figures. And a run ends when one of them
does."""

import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from open_clip.model import CLIP

from hpl.analysis.attention import explain
from hpl.analysis.evaluate import evaluate_model
from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import ImageTower, TextTower, frozen_copy
from hpl.batches.loading import Batch, Step, StepDataset, TrainingData, TrainingPictures
from hpl.batches.transforms import augment
from hpl.config import Inversion, load_params
from hpl.files import HplError
from hpl.manifests.tables import Manifests
from hpl.prompts.learned import LearnedPrompts
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import encode_sets, evaluate_towers
from hpl.retrieval.sets import read_test_sets
from hpl.runtime import distributed
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.runtime.distributed import (
    average_gradients,
    check_agreement,
    gather_rows,
    gather_shares,
    rank,
    run_processes,
    share,
    share_of_rows,
    world_size,
)
from hpl.training.diagnosis import diagnose
from hpl.training.model import HPL, LOSSES
from hpl.training.pretrain import pretrain
from hpl.training.train import train
from tests.support.imports import ROOT
from tests.support.native_sets import build
from tests.support.parameters import with_profile
from tests.support.pictures import picture, save
from tests.support.tiny import SIZE, fresh_clip
from tests.support.toy import PIDS, Tables

PARAMS = load_params(ROOT / "params.yaml")
CPU, BOTH = torch.device("cpu"), ["t2i", "i2i"]
STEPS = 10
NUM_CAPTIONED, NUM_PICTURES = 5, 7  # odd, so that two processes have unequal shares
VARIANTS = {  # prompts, task routing, tasks, changes of `loss`, micro_batch if any
    "all": (True, True, BOTH, {}),
    "micro-batch": (True, True, BOTH, {}, 2),
    "i2i batch": (True, True, BOTH, {"i2i_batch": "i2i"}),
    "text-guided": (True, True, BOTH, {"vision_guided": False, "prompt_reg": 0.0}),
    "vision-guided": (True, True, BOTH, {"text_guided": False, "prompt_reg": 0.0}),
    "CMPR": (True, True, BOTH, {"instance_align": 0.0}),
    "plain features": (True, True, BOTH, {"normalize_features": False}),
    "TRT": (False, True, BOTH, {}),
    "baseline": (False, False, BOTH, {}),
    "i2i": (True, True, ["i2i"], {}),
    "t2i": (True, True, ["t2i"], {}),
}


class Stopped(Exception):
    pass


class StoppedAfter(Checkpoint):
    """Stops every process after so many steps."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, 0)
        self.steps_left = steps

    def save(self, *place: int, **objects: object) -> None:
        super().save(*place, **objects)
        self.steps_left -= 1
        if not self.steps_left:
            raise Stopped


def fresh_prompts(clip: CLIP) -> LearnedPrompts:
    torch.manual_seed(0)
    prompts = LearnedPrompts(PARAMS.prompt, Inversion(layers=1, heads=2), frozen_copy(TextTower(clip)), PIDS)
    prompts.identity_prompts.normal_()
    return prompts


def toy(world: Path) -> TrainingData:
    """The toy's tables and its packed pictures, which each process writes for itself."""
    folder = world / f"pictures of {rank()} of {world_size()}"
    folder.mkdir(exist_ok=True)
    return TrainingData(Tables(folder), folder)


def losses_and_gradients(
    prompts: bool, task_routing: bool, tasks: list[str], changes: dict, micro_batch: int | None = None
) -> dict:
    """Of one batch, of which each process gets its share."""
    clip = fresh_clip()
    model = PARAMS.model.model_copy(update={"task_routing": task_routing})
    hpl = HPL(clip, model, len(PIDS), fresh_prompts(clip) if prompts else None, seed=0).train()
    counts = (NUM_CAPTIONED if "t2i" in tasks else 0), (NUM_PICTURES if "i2i" in tasks else 0)
    images = torch.randn(sum(counts), 3, 24, 12, generator=torch.Generator().manual_seed(1))
    captions = ["A man in red.", "A woman walks past the blue shop.", "A child.", "A man.", "A girl with two bags."][: counts[0]]
    labels = torch.tensor([0, 1, 0, 2, 3, 2, 2, 3, 3, 4, 0, 4])[: sum(counts)]
    own, own_captions = share_of_rows(counts, rank(), world_size()), share(counts[0], rank(), world_size())
    share_of_batch = Batch(images[own], tokenize(captions, 32)[own_captions], labels, counts[0])
    losses, compared = hpl(share_of_batch, PARAMS.loss.model_copy(update=changes), tasks, micro_batch)
    figures = diagnose(hpl, losses, compared)
    sum(losses.values()).backward()
    average_gradients(hpl.parameters())
    gradients = {name: parameter.grad for name, parameter in hpl.named_parameters() if parameter.grad is not None}
    means = {"running mean": hpl.i2i_neck.running_mean, "running variance": hpl.i2i_neck.running_var}
    return {
        "losses": {name: loss.detach() for name, loss in losses.items()},
        "gradients": gradients | means,
        "diagnosis": figures,
    }


def pretrained(world: Path) -> dict:
    data = toy(world)
    data.manifests.images["role"] = data.manifests.captions["role"] = "pretrain"
    changes = {
        "epochs": STEPS,
        "batch_size": 5,
        "loader_workers": 0,
        "warmup_epochs": 1,
        "lr": 1e-4,
    }  # of 8 captions: one step an epoch
    clip, options = fresh_clip(), PARAMS.active.pretrain.model_copy(update=changes)
    curves = pretrain(clip, data, with_profile(PARAMS, pretrain=options, input=SIZE), CPU)
    return {"weights": clip.state_dict(), "curves": curves.rows}


def measured(rows: list[dict]) -> list[dict]:
    """Curves without what was not measured (NaN, which equals nothing)."""
    return [{name: value for name, value in row.items() if not math.isnan(value)} for row in rows]


def trained(world: Path, checkpoint: Checkpoint = NOTHING_KEPT, **more: object) -> dict:
    changes = {"epochs": STEPS, "t2i_batch": 5, "i2i_batch": 9, "num_instances": 3, "pad": 1, "warmup_epochs": 1, "peak_lr": 1e-4}
    clip = fresh_clip()
    options = PARAMS.active.train.model_copy(update={**changes, "amp": False, "loader_workers": 0, **more})
    params = with_profile(PARAMS, train=options, input=SIZE)
    model, curves, _ = train(clip, fresh_prompts(clip), toy(world), params, CPU, checkpoint)
    return {"weights": model.state_dict(), "curves": measured(curves.rows)}


def resumed(world: Path) -> dict:
    state = world / f"state of {world_size()}"
    try:
        with StoppedAfter(state, 4) as checkpoint:
            trained(world, checkpoint)
    except Stopped:
        pass
    with Checkpoint(state, 0) as checkpoint:
        return trained(world, checkpoint)


def extracted(world: Path) -> dict:
    clip = fresh_clip()
    images, texts = ImageTower(clip, task_routing=True, i2i_token_noise=0.5), TextTower(clip)
    files = sorted((world / "people").rglob("*.png"))
    found = {}
    for count in range(6):
        for size in (1, 2, 4):
            extractor = Extractor(images=images, texts=texts, size=SIZE, batch_size=size, device=CPU)
            found["t2i", count, size], found["i2i", count, size] = extractor.pictures(files[:count])
            found["text", count, size] = extractor.captions([f"A person with {number} bags." for number in range(count)])
    return found


def evaluated(world: Path) -> dict:
    clip, tables = fresh_clip(), Manifests(world / "out" / "manifests")
    images, texts = ImageTower(clip, task_routing=True, i2i_token_noise=0.5), TextTower(clip)
    extractor = Extractor(images=images, texts=texts, size=SIZE, batch_size=3, device=CPU)
    encoded = encode_sets(extractor, tables, read_test_sets(tables))
    maps, options = explain(extractor, tables), PARAMS.active.evaluate
    return {
        "maps": {name: array.tolist() for name, array in maps.items()},
        "figures": evaluate_towers(extractor, tables, options),
        "tables": {name: table.to_csv() for name, table in evaluate_model(encoded, options)[1].items()},
    }


def drifted() -> str:
    """What a process says whose model is not that of the others."""
    weights = [torch.ones(3, 2), torch.tensor(1.0)]
    check_agreement("here", weights)
    weights[1] += rank() * 1e-7
    try:
        check_agreement("there", weights)
    except HplError as error:
        return str(error)
    return ""


def everything(world: Path) -> None:
    """All of it in one group of processes, because starting one takes seconds. Each writes what it found."""
    torch.set_num_threads(1)
    found = {name: losses_and_gradients(*variant) for name, variant in VARIANTS.items()}
    found |= {"pretrained": pretrained(world), "trained": trained(world), "resumed": resumed(world)}
    found["moments of tasks"] = trained(world, moments="task")
    found |= {"with workers": trained(world, loader_workers=1), "amp": trained(world, amp=True)}
    clip = fresh_clip()
    untrained = HPL(clip, PARAMS.model, len(PIDS), fresh_prompts(clip), 0).state_dict()
    found["untrained"] = {"pretrained": fresh_clip().state_dict(), "trained": untrained, "moments of tasks": untrained}
    found |= {"extracted": extracted(world), "evaluated": evaluated(world), "drifted": drifted()}
    torch.save(found, world / f"{rank()} of {world_size()}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[dict]]:
    """What one process finds, and what each of two does."""
    world = tmp_path_factory.mktemp("world")
    for person in range(3):
        for number in range(3):
            file = save(picture(600 + 10 * person + number), world / "people" / f"p{person}" / f"{number}.png")
            file.with_suffix(".txt").write_text(f"Person {person} in picture {number}.")
    build(world, world / "out", datasets=({"format": "folders", "folder": "people", "use": ["test"]},))
    run_processes(partial(everything, world), 1)
    run_processes(partial(everything, world), 2)
    whole, *parts = (torch.load(world / f"{name}.pt", weights_only=False) for name in ("0 of 1", "0 of 2", "1 of 2"))
    return whole, parts


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_losses_and_gradients(found: tuple[dict, list[dict]], variant: str) -> None:
    whole, parts = found
    for part in parts:
        for kind in ("losses", "gradients"):
            assert list(part[variant][kind]) == list(whole[variant][kind])
            for name, value in whole[variant][kind].items():
                scale = value.abs().max() + 1e-12
                torch.testing.assert_close(part[variant][kind][name] / scale, value / scale, rtol=1e-4, atol=1e-5)
        assert part[variant]["diagnosis"] == pytest.approx(whole[variant]["diagnosis"], rel=1e-3, abs=1e-5)
    if variant == "all":
        assert list(whole[variant]["losses"]) == LOSSES
        assert all(loss > 0 for loss in whole[variant]["losses"].values())


def key_bias(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Where the biases of attention keys are. The softmax takes no notice of them: Adam makes whole steps of their gradients'
    rounding."""
    mask = torch.zeros_like(weight, dtype=torch.bool)
    if name.endswith("in_proj_bias"):
        mask.chunk(3)[1].fill_(True)
    return mask


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["pretrained", "trained", "moments of tasks"])
def test_ten_optimiser_steps(found: tuple[dict, list[dict]], loop: str) -> None:
    whole, (first, second) = found
    assert len(whole[loop]["curves"]) == STEPS
    for row, expected in zip(first[loop]["curves"], whole[loop]["curves"], strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    moved = 0
    for name, weight in whole[loop]["weights"].items():
        assert torch.equal(first[loop]["weights"][name], second[loop]["weights"][name]), name  # both processes hold the same bits
        mask = key_bias(name, weight)
        one, two = (weights.masked_fill(mask, 0) for weights in (weight, first[loop]["weights"][name]))
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
        moved += not torch.equal(weight, whole["untrained"][loop].get(name, weight))
    assert moved > 40


@pytest.mark.slow
def test_half_precision_agrees_to_its_own_tolerance(found: tuple[dict, list[dict]]) -> None:
    whole, (first, _) = found
    for row, expected in zip(first["amp"]["curves"], whole["amp"]["curves"], strict=True):
        assert row == pytest.approx(expected, rel=3e-2, abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["resumed", "with workers"])
def test_a_stopped_run_goes_on_to_the_same_bits_and_workers_change_none(found: tuple[dict, list[dict]], other: str) -> None:
    for process in (found[0], *found[1]):
        assert process[other]["curves"] == process["trained"]["curves"]
        for name, weight in process["trained"]["weights"].items():
            assert torch.equal(process[other]["weights"][name], weight), name


@pytest.mark.slow
def test_features_have_the_same_bits_and_none_is_lost_or_doubled(found: tuple[dict, list[dict]]) -> None:
    whole, parts = found
    assert len(whole["extracted"]) == 6 * 3 * 3
    for (kind, count, size), features in whole["extracted"].items():
        assert features.shape == (count, 16)
        for part in parts:
            assert torch.equal(part["extracted"][kind, count, size], features), (kind, count, size)


@pytest.mark.slow
def test_figures_are_the_same_and_the_first_process_alone_has_them(found: tuple[dict, list[dict]]) -> None:
    whole, (first, second) = found
    assert first["evaluated"] == whole["evaluated"] and set(whole["evaluated"]["figures"]) == {"t2i", "i2i"}
    assert second["evaluated"] == whole["evaluated"] | {"figures": {}}


@pytest.mark.slow
def test_processes_that_differ_are_told(found: tuple[dict, list[dict]]) -> None:
    whole, parts = found
    assert whole["drifted"] == "" and all("there: the 2 processes differ" in part["drifted"] for part in parts)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 8])
def test_shares_cover_everything_once_and_differ_by_one_at_most(count: int, processes: int) -> None:
    shares = [list(range(count))[share(count, number, processes)] for number in range(processes)]
    assert sum(shares, []) == list(range(count)) and max(map(len, shares)) - min(map(len, shares)) <= 1
    rows = torch.cat([share_of_rows((count, 7), number, processes) for number in range(processes)])
    assert sorted(rows.tolist()) == list(range(count + 7))


def test_one_process_hands_back_what_it_was_given() -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_shares(rows, 2, 1) is rows and gather_rows(rows, [3]) is rows


def test_the_shares_of_all_processes_are_the_batch_of_one(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    step = Step(np.array([20, 23, 21, 30, 28, 20, 33]), np.array([1, 6, 3]), np.array([0, 2, 0, 4, 3, 0, 4]), seed=5)
    made = StepDataset(TrainingPictures(tables, tmp_path, tables.images, SIZE), tables.captions["caption"], 32, [step], 2, 0.5)
    whole = made[0]
    assert torch.equal(whole.images_B3HW, augment(made.pictures.read(step.image_ids), 2, 0.5, 5))
    for processes in (2, 3):
        rows, images, tokens = [], [], []
        for number in range(processes):
            made.process = number, processes
            batch = made[0]
            assert torch.equal(batch.labels_B, whole.labels_B) and batch.num_captioned == 3
            rows.append(share_of_rows(step.counts, number, processes))
            images.append(batch.images_B3HW)
            tokens.append(batch.token_ids_TL)
        assert torch.equal(torch.cat(images), whole.images_B3HW[torch.cat(rows)]) and torch.equal(
            torch.cat(tokens), whole.token_ids_TL
        )


def test_more_processes_than_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Tables(tmp_path)
    step = Step(np.array([20, 23, 21, 30]), np.array([1, 6, 3]), np.array([0, 2, 0, 4]), seed=5)
    monkeypatch.setattr("hpl.batches.loading.world_size", lambda: 2)
    with pytest.raises(HplError, match="num_processes = 2, but a step has only 1 captions, or pictures without one"):
        StepDataset(TrainingPictures(tables, tmp_path, tables.images, SIZE), tables.captions["caption"], 32, [step], 2, 0.5)


SCRIPT = """
import os, sys, time
import torch
from hpl.runtime import distributed
from hpl.runtime.distributed import gather_rows, rank, run_processes
from hpl.files import HplError, run_stage

distributed.STALL_SECONDS = 4.0

def main():
    together = gather_rows(torch.tensor([rank()]), [1, 1])
    if rank() == 1:
        if "killed" in sys.argv:
            os.kill(os.getpid(), 9)
        if "mistake" in sys.argv:
            raise HplError("picture.jpg: not a picture")
        if "bug" in sys.argv:
            raise ValueError("this should not happen")
        if "exit" in sys.argv:
            os._exit(3)
        if "stopped" in sys.argv:
            os.kill(os.getpid(), 19)
        if "waits" in sys.argv:
            time.sleep(300)
    elif "busy" in sys.argv:
        time.sleep(300)
    gather_rows(torch.tensor([rank()]), [1, 1])
    if not rank():
        print("together", together.tolist())

if __name__ == "__main__":
    run_stage(lambda: run_processes(main, 2))
"""


def run_script(folder: Path, *words: str, command: tuple[str, ...] = (), **environment: str) -> tuple[int, str, str]:
    (folder / "script.py").write_text(SCRIPT)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command, str(folder / "script.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert time.monotonic() - start < 60
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("killed", "error: process 1 of 2 was killed by SIGKILL, perhaps for want of memory; the others were stopped"),
        ("killed busy", "error: process 1 of 2 was killed by SIGKILL, perhaps for want of memory; the others were stopped"),
        ("stopped", "error: process 1 of 2 has done nothing for 4 s: stopped by a signal; the others were stopped. Run the same"),
        ("waits", "error: process 0 of 2 has done nothing for 4 s: waiting for something that never comes; the others were"),
        ("mistake", "error: picture.jpg: not a picture"),
        ("bug", "error: process 1 of 2 failed: ValueError: this should not happen; the others were stopped"),
        ("exit", "error: process 1 of 2 ended with code 3; the others were stopped"),
    ],
)
def test_a_process_that_dies_ends_the_run_with_its_cause(tmp_path: Path, how: str, said: str) -> None:
    code, _, errors = run_script(tmp_path, *how.split())
    assert code == 1 and errors.strip().splitlines()[-1].startswith(said)
    assert ("Traceback" in errors) == (how == "bug")
    if how != "bug":
        assert len([line for line in errors.splitlines() if "error" in line.lower()]) == 1


TORCHRUN = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"


@pytest.mark.slow
def test_torchrun_starts_a_stage_or_is_started_by_it(tmp_path: Path) -> None:
    code, output, errors = run_script(tmp_path, command=TORCHRUN)
    assert (code, output) == (0, "together [0, 1]\n"), errors
    code, output, errors = run_script(tmp_path, HPL_LAUNCHER=" ".join([sys.executable, *TORCHRUN]))
    assert (code, output) == (0, "together [0, 1]\n"), errors
    code, output, errors = run_script(tmp_path, "mistake", HPL_LAUNCHER=" ".join([sys.executable, *TORCHRUN]))
    assert code == 1 and "error: picture.jpg: not a picture" in errors
    assert errors.strip().splitlines()[-1] == "error: HPL_LAUNCHER ended with code 1; what its processes said stands above"


@pytest.mark.parametrize(("free", "said"), [(1 << 30, ""), (64 << 20, "/dev/shm has 64 MB free, and 2 processes may want 128")])
def test_nccl_does_without_a_small_shared_memory(
    free: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("NCCL_SHM_DISABLE", "")  # so that it is put back
    monkeypatch.delenv("NCCL_SHM_DISABLE")
    distributed._spare_shared_memory()
    errors = capsys.readouterr().err
    assert (
        os.environ.get("NCCL_SHM_DISABLE") == ("1" if said else None) and errors.startswith(said) and bool(errors) == bool(said)
    )


def test_another_number_than_was_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(HplError, match="num_processes = 2; expected 4, as many as were started"):
        run_processes(lambda: None, 2)
