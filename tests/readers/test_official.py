"""Official counts: what DATASETS.md says, how a table is counted, and what a difference means."""

import pandas as pd
import pytest

from hpl.readers.official import OFFICIAL, count_mismatches, count_records


def changed(format: str, role: str, **units: int) -> dict:
    """The official counts but for one role."""
    counts = {name: dict(found) for name, found in OFFICIAL[format].items()}
    counts[role].update(units)
    return counts


@pytest.mark.parametrize("format", OFFICIAL)
def test_a_whole_set_has_no_mismatch(format: str) -> None:
    assert count_mismatches(format, OFFICIAL[format]) == []


def test_a_users_own_data_has_no_official_counts() -> None:
    assert count_mismatches("table", {}) == count_mismatches("folders", {"train": {"pictures": 3}}) == []


def test_the_sums_are_those_of_the_papers() -> None:
    total = {name: sum(role["pictures"] for role in OFFICIAL[name].values() if "captions" in role) for name in OFFICIAL}
    assert (total["cuhk-pedes"], total["icfg-pedes"], total["rstpreid"]) == (40206, 54522, 20505)
    people = {name: sum(role["people"] for role in OFFICIAL[name].values() if "captions" in role) for name in OFFICIAL}
    assert (people["cuhk-pedes"], people["icfg-pedes"], people["rstpreid"]) == (13003, 4102, 4101)
    assert 12936 + 19732 == 32668 and 751 + 750 == 1501  # Market-1501's boxes (queries are drawn by hand) and people
    assert sum(OFFICIAL["msmt17"][role]["pictures"] for role in ("train", "query", "gallery")) == 126441
    assert sum(OFFICIAL["dukemtmc-reid"][role]["pictures"] for role in ("train", "query", "gallery")) == 36411


@pytest.mark.parametrize(
    ("format", "role", "units", "sentence"),
    [
        ("market-1501", "gallery", {"pictures": 15913}, "gallery: 15,913 pictures, officially 19,732: junk files were removed"),
        (
            "market-1501",
            "gallery",
            {"pictures": 13115},
            "gallery: 13,115 pictures, officially 19,732: junk and distractor files were",
        ),
        (
            "market-1501",
            "gallery",
            {"pictures": 519732},
            "gallery: 519,732 pictures, officially 19,732: this is the extended set",
        ),
        (
            "market-1501",
            "gallery",
            {"pictures": 0},
            "gallery: 0 pictures, officially 19,732 pictures: a folder, list or split is missing",
        ),
        ("market-1501", "junk", {"pictures": 0}, "junk: 0 pictures, officially 3,819: junk files were removed"),
        ("market-1501", "all", {"cameras": 5}, "all: 5 cameras, officially 6: pictures of some cameras are missing"),
        ("market-1501", "all", {"cameras": 7}, "all: 7 cameras, officially 6: file names give other cameras"),
        ("market-1501", "query", {"people": 749}, "query: 749 people, officially 750: people are missing"),
        ("msmt17", "train", {"pictures": 30248}, "train: 30,248 pictures, officially 32,621: list_val.txt is missing"),
        ("msmt17", "query", {"pictures": 11660}, "query: 11,660 pictures, officially 11,659: pictures were added"),
        ("cuhk-pedes", "train", {"captions": 68108}, "train: 68,108 captions, officially 68,126: captions beyond two a picture"),
        ("cuhk-pedes", "gallery", {"captions": 6000}, "gallery: 6,000 captions, officially 6,156: captions were removed"),
        ("rstpreid", "val", {"captions": 2001}, "val: 2,001 captions, officially 2,000: captions were added"),
        ("icfg-pedes", "val", {"people": 5}, "val: 5 people, officially 0: the official set has no val"),
    ],
)
def test_a_difference_is_one_sentence_with_both_numbers_and_the_cause(format: str, role: str, units: dict, sentence: str) -> None:
    (found,) = count_mismatches(format, changed(format, role, **units))
    assert found.startswith(sentence)


def test_a_role_without_pictures_is_one_sentence() -> None:
    (found,) = count_mismatches("rstpreid", changed("rstpreid", "train", people=0, pictures=0, captions=0))
    assert found == (
        "train: 0 pictures, officially 3,701 people, 18,505 pictures, 37,010 captions: a folder, list or split is missing"
    )
    assert len(count_mismatches("market-1501", {})) == 5


def test_the_first_release_of_rstpreid_is_recognised() -> None:
    found = count_mismatches("rstpreid", changed("rstpreid", "train", people=3901, pictures=19505, captions=39010))
    assert len(found) == 3 and all("first release, whose split its authors corrected" in sentence for sentence in found)


def test_a_table_is_counted() -> None:
    rows = [  # split, role, person, anonymous, source_pid, camid, num_captions
        ("train", "train", "0001", False, 1, 1, 2),
        ("train", "train", "0001", False, 1, 2, 3),
        ("val", "val", "0002", False, 2, 1, 1),
        ("test", "query", "0003", False, 3, 1, 0),
        ("test", "gallery", "0003", False, 3, 6, 0),
        ("test", "gallery", "", True, -1, 6, 0),
        ("test", "gallery", "", True, 0, 6, 0),
        ("test", "gallery", "", True, 0, -1, 0),
        ("train", "train", "0", False, 0, 1, 1),  # in MSMT17 0 is a person
    ]
    pictures = pd.DataFrame(rows, columns="split role person anonymous source_pid camid num_captions".split())
    expected = {
        "train": {"people": 2, "pictures": 3, "captions": 6},
        "val": {"people": 1, "pictures": 1, "captions": 1},
        "query": {"people": 1, "pictures": 1, "captions": 0},
        "gallery": {"people": 1, "pictures": 4, "captions": 0},
        "junk": {"pictures": 1},
        "distractors": {"pictures": 2},
        "all": {"cameras": 3},
    }
    assert count_records(pictures) == expected
    assert count_records(pictures.astype({"source_pid": "Int64"})) == expected
    assert count_records(pictures[:0])["train"] == {"people": 0, "pictures": 0, "captions": 0}
