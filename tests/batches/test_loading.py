"""Training pictures come from the packed arrays, from files, or from both; workers change nothing and name a bad file."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hpl.backbones.encoding import normalise
from hpl.backbones.tokenizer import tokenize
from hpl.batches.loading import Batch, Step, StepDataset, TrainingPictures, load_steps
from hpl.batches.transforms import augment
from hpl.config import Input
from hpl.files import HplError
from hpl.manifests.shards import ShardWriter
from hpl.pictures import read_pictures
from tests.support.pictures import picture, save

SIZE = Input(height=24, width=12, context_length=32)
CPU = torch.device("cpu")


class Files:
    """Stands in for hpl.manifests.tables.Manifests."""

    def files(self, images: pd.DataFrame) -> list[Path]:
        return [Path(path) for path in images["path"]]


@pytest.fixture
def images(tmp_path: Path) -> pd.DataFrame:
    """Seven pictures, in no order; those with an even image_id are packed, in reverse."""
    image_ids = np.array([9, 3, 4, 7, 2, 8, 5])
    files = [save(picture(int(number)), tmp_path / f"{number}.png") for number in image_ids]
    packed = np.sort(image_ids[image_ids % 2 == 0])[::-1]
    with ShardWriter(tmp_path, "pictures", 2) as writer:
        writer.append(read_pictures([tmp_path / f"{number}.png" for number in packed], 24, 12))
    rows = {number: row for row, number in enumerate(packed.tolist())}
    table = {
        "image_id": image_ids,
        "path": [str(file) for file in files],
        "pack_row": [rows.get(n, -1) for n in image_ids.tolist()],
    }
    return pd.DataFrame(table, index=image_ids)


def reader(images: pd.DataFrame, tmp_path: Path) -> TrainingPictures:
    return TrainingPictures(Files(), tmp_path, images, SIZE)


@pytest.mark.parametrize("wanted", [[4, 2, 8, 4], [9, 3, 3], [7, 8, 2, 9, 5], []])
def test_pictures_come_from_wherever_they_are(images: pd.DataFrame, tmp_path: Path, wanted: list[int]) -> None:
    pictures = pickle.loads(pickle.dumps(reader(images, tmp_path))).read(np.array(wanted, dtype=np.int64))
    expected = torch.from_numpy(read_pictures([tmp_path / f"{number}.png" for number in wanted], 24, 12))
    assert pictures.dtype == torch.uint8 and torch.equal(pictures, expected)


def test_nothing_packed_needs_no_folder_and_an_unknown_picture_is_refused(images: pd.DataFrame, tmp_path: Path) -> None:
    loose = reader(images.assign(pack_row=-1), tmp_path / "none")
    assert np.array_equal(loose.read(np.array([8, 9])), read_pictures([tmp_path / "8.png", tmp_path / "9.png"], 24, 12))
    for unknown in (1, 6, 10):
        with pytest.raises(KeyError):
            loose.read(np.array([2, unknown]))


@pytest.mark.parametrize("damage", ["fewer", "smaller", "cut"])
def test_packed_pictures_that_do_not_fit_the_table_are_refused(images: pd.DataFrame, tmp_path: Path, damage: str) -> None:
    first, last = tmp_path / "pictures-00000.npy", tmp_path / "pictures-00001.npy"
    if damage == "fewer":
        last.unlink()
    elif damage == "cut":
        last.write_bytes(last.read_bytes()[:-5])
    else:
        for file in (first, last):
            np.save(file, np.load(file)[:, :, :12])
    with pytest.raises(HplError, match="delete .* and run the (preprocess stage again|stage that writes it)"):
        reader(images, tmp_path).read(np.array([2, 4, 8]))


def steps() -> list[Step]:
    generator = np.random.default_rng(0)
    return [
        Step(generator.permutation([2, 3, 4, 5, 7, 8, 9])[:4], np.array([number, 2]), np.arange(4), number) for number in range(3)
    ]


CAPTIONS = pd.Series(["A man in red.", "A woman with a bag.", "A child runs."], index=[5, 6, 9])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_steps_whatever_the_number_of_workers(images: pd.DataFrame, tmp_path: Path, num_workers: int) -> None:
    pictures = reader(images, tmp_path)
    made: list[Batch] = list(load_steps(StepDataset(pictures, CAPTIONS, 32, steps(), 2, 0.5), num_workers, CPU))
    for step, batch in zip(steps(), made, strict=True):
        expected = normalise(augment(pictures.read(step.image_ids), 2, 0.5, step.seed))
        assert torch.equal(batch.images_B3HW, expected) and batch.num_captioned == 2
        assert torch.equal(batch.token_ids_TL, tokenize(CAPTIONS.iloc[step.caption_rows], 32))
        assert batch.labels_B.tolist() == [0, 1, 2, 3]


def test_a_step_without_captions(images: pd.DataFrame, tmp_path: Path) -> None:
    step = Step(np.array([2, 3]), np.zeros(0, np.int64), np.arange(2), 0)
    (batch,) = load_steps(StepDataset(reader(images, tmp_path), CAPTIONS, 32, [step], 2, 0.5), 0, CPU)
    assert batch.token_ids_TL.shape == (0, 32) and len(batch.images_B3HW) == 2 and batch.num_captioned == 0


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_worker_names_the_bad_file_and_nothing_else(images: pd.DataFrame, tmp_path: Path, num_workers: int) -> None:
    (tmp_path / "7.png").unlink()
    with pytest.raises(HplError) as caught:
        list(load_steps(StepDataset(reader(images, tmp_path), CAPTIONS, 32, steps(), 2, 0.5), num_workers, CPU))
    assert str(caught.value) == f"{tmp_path / '7.png'}: picture not found"


class Killed:
    """Stands in for TrainingPictures where memory runs out: the system kills who reads."""

    def read(self, image_ids: np.ndarray) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return torch.empty(0)


def test_a_worker_killed_for_memory_is_one_line_that_says_what_to_lower() -> None:
    said = "a process that reads training pictures was killed by SIGKILL, perhaps for want of memory; a lower loader_workers"
    with pytest.raises(HplError, match=said):
        list(load_steps(StepDataset(Killed(), CAPTIONS, 32, steps(), 2, 0.5), 2, CPU))


def test_whoever_stops_training_stops_the_workers(images: pd.DataFrame, tmp_path: Path) -> None:
    batches = load_steps(StepDataset(reader(images, tmp_path), CAPTIONS, 32, steps(), 2, 0.5), 2, CPU)
    next(batches)
    before = {child.pid for child in multiprocessing.active_children()}
    batches.close()
    assert before and not {child.pid for child in multiprocessing.active_children()}
