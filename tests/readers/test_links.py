"""The same shot in two sets: found through re-encoding, resizing and crops, and never between two different pictures."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpl.readers.decoding import picture_facts
from hpl.readers.links import aligned_correlation, find_links
from hpl.readers.unify import unify_identities
from tests.support.pictures import picture

SIZE = (60, 150)


def shot(seed: int) -> Image.Image:
    """A random person-like picture: a coarse layout with finer detail on it."""
    coarse, fine = (
        np.asarray(picture(seed, SIZE), np.float32),
        np.random.default_rng([seed, 1]).integers(0, 256, (30, 12, 3), dtype=np.uint8),
    )
    detail = np.asarray(Image.fromarray(fine).resize(SIZE, Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray((0.7 * coarse + 0.3 * detail).astype(np.uint8))


def changed(
    image: Image.Image, quality: int = 90, factor: float = 1, crop: tuple[float, float, float, float] = (0, 0, 0, 0)
) -> bytes:
    width, height = image.size
    left, top, right, bottom = crop
    image = image.crop((round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom))))
    buffer = io.BytesIO()
    image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=quality
    )
    return buffer.getvalue()


def table(*sets: list[bytes]) -> tuple[pd.DataFrame, np.ndarray]:
    facts = [(f"set{number}", picture_facts(data, "x", None)) for number, files in enumerate(sets) for data in files]
    frame = pd.DataFrame([(name, fact.sha256) for name, fact in facts], columns=["dataset", "sha256"])
    return frame, np.stack([fact.fingerprint_HW3 for _, fact in facts])


def link(*sets: list[bytes]) -> pd.DataFrame:
    frame, fingerprints = table(*sets)
    return find_links(frame, lambda rows: fingerprints[rows], 0.86, 0.92)


CHANGES = [
    {"quality": 60},
    {"factor": 2},
    {"factor": 0.5},
    {"crop": (0.05, 0, 0, 0.05)},
    {"crop": (0, 0.05, 0.05, 0)},
    {"crop": (0.025, 0.025, 0.025, 0.025), "quality": 60},
    {"crop": (0.05, 0.05, 0.05, 0.05), "factor": 0.5, "quality": 60},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("copy_first", [False, True])
def test_each_copy_is_linked_to_its_original_and_to_nothing_else(change: dict, copy_first: bool) -> None:
    originals = [changed(shot(seed)) for seed in range(30)]
    copies = [changed(shot(seed), **change) for seed in range(10)] + [changed(shot(seed)) for seed in range(100, 120)]
    links = link(copies, originals) if copy_first else link(originals, copies)
    assert list(zip(links["left"], links["right"], strict=True)) == [(row, 30 + row) for row in range(10)]
    assert (links["kind"] == "perceptual").all() and links["correlation"].between(0.92, 1).all()


def test_equal_pixels_are_exact_whatever_the_file() -> None:
    image = shot(1)
    png, bmp = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG"), image.save(bmp, "BMP")
    links = link([png.getvalue(), changed(shot(2))], [changed(shot(3)), bmp.getvalue()])
    assert links.to_dict("records") == [{"left": 0, "right": 3, "kind": "exact", "correlation": 1.0}]


def test_inside_a_set_only_equal_pixels_count() -> None:
    twice = changed(shot(1))
    assert link([twice, changed(shot(1), quality=60), twice])[["left", "right", "kind"]].to_numpy().tolist() == [[0, 2, "exact"]]


def test_flat_pictures_link_nobody() -> None:
    blank = changed(Image.new("RGB", SIZE, (40, 40, 40)))
    assert link([blank, changed(shot(1))], [blank, changed(shot(2))]).empty


def test_no_pictures_and_one_set_give_no_links() -> None:
    assert link([changed(shot(1))]).empty
    assert list(link([changed(shot(1))]).columns) == ["left", "right", "kind", "correlation"]


def test_alignment_is_symmetric_and_bounded() -> None:
    _, prints = table(
        [changed(shot(seed)) for seed in range(6)], [changed(shot(seed), crop=(0.05, 0, 0, 0.05)) for seed in range(6)]
    )
    forth, back = aligned_correlation(prints[:6], prints[6:]), aligned_correlation(prints[6:], prints[:6])
    np.testing.assert_allclose(forth, back, atol=1e-6)
    plain = aligned_correlation(prints[:6], prints[6:], enough=-1.0)  # nothing is searched
    assert (forth >= plain - 1e-6).all() and (forth <= 1 + 1e-5).all() and (forth > 0.97).all()
    np.testing.assert_allclose(aligned_correlation(prints, prints), 1, atol=1e-5)


def people(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Rows of (dataset, person, split)."""
    frame = pd.DataFrame(rows, columns=["dataset", "person", "split"])
    role = frame["split"].map({"train": "train", "val": "val", "test": "gallery", "pretrain": "pretrain"})
    return frame.assign(role=role, source_pid=0, anonymous=frame["person"] == "")


def unified(rows: list[tuple[str, str, str]], *pairs: tuple[int, int]) -> pd.DataFrame:
    return unify_identities(people(rows), pd.DataFrame(pairs, columns=["left", "right"], dtype=np.int64))


def test_linked_people_get_one_label_through_any_chain() -> None:
    done = unified([("a", "1", "train"), ("b", "7", "train"), ("c", "x", "train"), ("c", "y", "train")], (0, 1), (1, 2))
    assert done["pid"].tolist() == [1, 1, 1, 2] and (done["role"] == "train").all()


@pytest.mark.parametrize("split", ["train", "val", "pretrain"])
def test_whoever_is_linked_to_a_test_split_leaves_what_is_learnt_from(split: str) -> None:
    done = unified([("a", "1", split), ("a", "1", split), ("a", "2", split), ("b", "5", "test")], (0, 3))
    assert done["role"].tolist()[:2] == ["dropped", "dropped"] and done["role"].tolist()[2] != "dropped"
    assert done.at[3, "role"] == "gallery"


def test_the_chain_to_a_test_person_may_have_several_links() -> None:
    done = unified([("a", "1", "train"), ("b", "5", "pretrain"), ("c", "9", "test")], (0, 1), (1, 2))
    assert done["role"].tolist() == ["dropped", "dropped", "gallery"]


def test_a_picture_of_nobody_in_a_test_split_takes_the_person_out_but_joins_nobody() -> None:
    done = unified([("a", "1", "train"), ("a", "2", "train"), ("b", "", "test"), ("b", "", "test")], (0, 2), (1, 3))
    assert done["role"].tolist()[:2] == ["dropped", "dropped"] and done["pid"].tolist() == [1, 2, 0, 0]


def test_equal_pictures_inside_a_set_join_nobody_but_may_not_stand_in_training_and_test() -> None:
    done = unified([("a", "1", "train"), ("a", "2", "train"), ("a", "3", "train"), ("a", "4", "test")], (0, 1), (2, 3))
    assert done["pid"].tolist() == [1, 2, 3, 4]
    assert done["role"].tolist() == ["train", "train", "dropped", "gallery"]


def test_validation_gives_way_to_training() -> None:
    assert unified([("a", "1", "val"), ("b", "5", "train")], (0, 1))["role"].tolist() == ["dropped", "train"]


def test_equal_names_in_two_sets_are_two_people() -> None:
    assert unified([("a", "1", "train"), ("b", "1", "test")])["pid"].tolist() == [1, 2]
