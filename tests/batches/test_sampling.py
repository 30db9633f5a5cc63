"""Batches at the paper's numbers on made-up tables, and people whom few pictures or one set alone show."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hpl.backbones.tokenizer import tokenize
from hpl.batches.loading import Batch, Step, StepDataset, TrainingPictures
from hpl.batches.sampling import identity_batches, shuffled_batches
from hpl.config import load_params
from hpl.training.train import epoch_steps
from tests.support.tiny import SIZE
from tests.support.toy import CAPTIONED_ALONE, PICTURED_ALONE, PIDS, SHARED, Tables

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PAPER = PARAMS.profiles["paper-cuhk-market"].train
BOTH = ["t2i", "i2i"]

# 337 captions, five batches of 64 and 17 over, of people 1 to 60; 680 pictures of people 41 to 110, who have 4 to 16 each
CAPTIONS = pd.DataFrame({"image_id": np.arange(337) // 2, "pid": np.arange(337) % 60 + 1})
PICTURES = pd.DataFrame({"image_id": np.arange(680) + 1000, "pid": np.repeat(np.arange(41, 111), 4 + np.arange(70) % 13)})
ALL_PIDS = np.arange(1, 111)
SEED = 3


def steps(epoch: int, tasks: list[str] = BOTH, captioned: bool = True) -> list[Step]:
    return epoch_steps(CAPTIONS if captioned else CAPTIONS[:0], PICTURES, ALL_PIDS, tasks, PAPER, SEED, epoch)


def test_a_batch_is_64_pairs_and_64_pictures_of_16_people() -> None:
    """METHOD, stage II: `train.t2i_batch`, `train.i2i_batch`, `train.num_instances`."""
    assert (PAPER.t2i_batch, PAPER.i2i_batch, PAPER.num_instances) == (64, 64, 4)
    for epoch in (1, 2, 60):
        made = steps(epoch)
        assert len(made) == 5
        for step in made:
            assert len(step.caption_rows) == 64 and len(step.image_ids) == len(step.labels) == 128
            pairs, people = slice(None, 64), slice(64, None)
            np.testing.assert_array_equal(step.image_ids[pairs], CAPTIONS["image_id"].to_numpy()[step.caption_rows])
            np.testing.assert_array_equal(ALL_PIDS[step.labels[pairs]], CAPTIONS["pid"].to_numpy()[step.caption_rows])
            np.testing.assert_array_equal(
                ALL_PIDS[step.labels[people]], PICTURES["pid"].to_numpy()[step.image_ids[people] - 1000]
            )
            assert np.unique(step.labels[people], return_counts=True)[1].tolist() == [4] * 16
            assert len(np.unique(step.image_ids[people])) == 64  # nobody has fewer than four: four different pictures


def test_each_caption_stands_once_in_an_epoch_but_for_those_left_over() -> None:
    left_over = []
    for epoch in range(1, 11):
        rows = np.concatenate([step.caption_rows for step in steps(epoch)])
        assert len(rows) == len(set(rows.tolist())) == 320
        left_over.append(set(range(337)) - set(rows.tolist()))
    assert all(len(rows) == 17 for rows in left_over) and not set.intersection(*left_over)
    np.testing.assert_array_equal(rows, np.concatenate([step.caption_rows for step in steps(10, ["t2i"])]))


def test_i2i_alone_takes_as_many_steps_as_both_tasks_or_without_captions_as_its_pictures_fill() -> None:
    for made, count in ((steps(1, ["i2i"]), 337 // 64), (steps(1, ["i2i"], captioned=False), 680 // 64)):
        assert len(made) == count and all(len(step.image_ids) == 64 and not len(step.caption_rows) for step in made)


def test_stage_one_sees_every_picture_once_an_epoch_the_last_ones_in_a_smaller_batch() -> None:
    batch_size = PARAMS.profiles["paper-cuhk-market"].construct_prompts.batch_size
    batches = shuffled_batches(337, batch_size, SEED, 1, drop_last=False)
    assert [len(batch) for batch in batches] == [64] * 5 + [17] and sorted(np.concatenate(batches)) == list(range(337))


def test_a_person_with_fewer_than_four_pictures_fills_the_four_with_repeats() -> None:
    """Drawn with replacement, so no other person's picture gets in; those with four or more are drawn without."""
    pids = np.repeat([7, 8, 9, 10], [1, 3, 4, 9])
    for batch in identity_batches(pids, 20, 16, 4, SEED, 1):
        drawn = {pid: batch[pids[batch] == pid] for pid in (7, 8, 9, 10)}
        assert all(len(pictures) == 4 for pictures in drawn.values())
        assert drawn[7].tolist() == [0] * 4 and set(drawn[8].tolist()) <= {1, 2, 3}
        assert sorted(drawn[9].tolist()) == [4, 5, 6, 7] and len(set(drawn[10].tolist())) == 4


def test_people_of_one_set_alone_keep_to_their_half_and_have_the_right_label(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    people = tables.images[tables.images["dataset"] == "I"]
    options = PAPER.model_copy(update={"t2i_batch": 2, "i2i_batch": 12})
    pid_of = tables.images.set_index("image_id")["pid"]
    pairs, pictures = set(), set()
    for epoch in range(1, 4):
        for step in epoch_steps(tables.captions, people, np.array(PIDS), BOTH, options, SEED, epoch):
            labels = np.array(PIDS)[step.labels]
            np.testing.assert_array_equal(labels, pid_of[step.image_ids])
            pairs |= set(labels[:2].tolist())
            pictures |= set(labels[2:].tolist())
            assert sorted(labels[2:].tolist()) == [6] * 4 + [7] * 4 + [9] * 4  # 7 has two pictures
    assert pairs == {*CAPTIONED_ALONE, *SHARED} and pictures == {*SHARED, *PICTURED_ALONE}


def test_a_step_becomes_a_batch_with_its_captions_first(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    options = PAPER.model_copy(update={"t2i_batch": 4, "i2i_batch": 8, "pad": 2})
    people = tables.images[tables.images["dataset"] == "I"]
    made = epoch_steps(tables.captions, people, np.array(PIDS), BOTH, options, SEED, 1)
    reader = TrainingPictures(tables, tmp_path, tables.images, SIZE)
    batch: Batch = StepDataset(reader, tables.captions["caption"], 32, made, pad=0, erase_probability=0.0)[0]
    assert batch.num_captioned == 4 and batch.token_ids_TL.shape == (4, 32) and batch.images_B3HW.shape == (12, 3, 24, 12)
    assert batch.labels_B.tolist() == made[0].labels.tolist()
    assert torch.equal(batch.token_ids_TL, tokenize([f"A person with {row} bags." for row in made[0].caption_rows], 32))
    pixels = reader.read(made[0].image_ids)
    same = (batch.images_B3HW == pixels).flatten(1).all(1) | (batch.images_B3HW == pixels.flip(-1)).flatten(1).all(1)
    assert torch.all(same)  # not padded and not erased, a picture is flipped or as it was
