"""Splits by identity and the choice of queries: what is asked for, nobody on two sides, and no effect of the order of rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpl.files import HplError
from hpl.manifests.tables import choose_queries
from hpl.readers.splits import check_cameras, complete_splits, hold_out_validation

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def table(rows: list[tuple]) -> pd.DataFrame:
    """Rows of person ("" is anonymous), split, role, camid and, where they are not all different, pixels."""
    rows = [(*row, *[f"pixels {number}"][len(row) - 4 :]) for number, row in enumerate(rows)]
    pictures = pd.DataFrame(rows, columns=["person", "split", "role", "camid", "sha256"])
    types = {"person": "str", "split": "str", "role": "str", "camid": np.int64}
    return pictures.astype(types).assign(anonymous=pictures["person"] == "", path=[f"{n:04d}.jpg" for n in range(len(rows))])


def unsplit(num_people: int, num_pictures: int = 2, split: str = "") -> pd.DataFrame:
    return table([(f"p{n:03d}", split, split, -1) for n in range(num_people) for _ in range(num_pictures)])


def people(pictures: pd.DataFrame, split: str) -> set[str]:
    return set(pictures.loc[(pictures["split"] == split) & ~pictures["anonymous"], "person"])


def held_out(pictures: pd.DataFrame, val_share: float, seed: int = 0) -> pd.DataFrame:
    """As build_manifests calls it: of one set, whose people are linked to nobody."""
    pid = pd.factorize(pictures["person"])[0] + 1
    return hold_out_validation(pictures.assign(dataset="own", pid=np.where(pictures["anonymous"], 0, pid)), val_share, seed)


@pytest.mark.parametrize(
    ("num_people", "val_share", "test_share", "num_val", "num_test"),
    [
        (20, 0.1, 0.25, 2, 5),  # 0.1 of the 15 left to train on
        (20, 0.0, 0.25, 0, 5),
        (20, 0.1, 0.0, 2, 0),
        (20, 0.01, 0.01, 1, 1),
        (3, 0.01, 0.01, 0, 1),  # after test two are left: too few to take one for a rounded 0
        (2, 0.1, 0.1, 0, 0),
        (2, 0.0, 0.9, 0, 1),
        (1, 0.5, 0.9, 0, 0),
        (10, 0.9, 0.9, 0, 9),  # one stays
    ],
)
def test_shares(num_people: int, val_share: float, test_share: float, num_val: int, num_test: int) -> None:
    done = held_out(complete_splits(unsplit(num_people), test_share, seed=0), val_share)
    counts = [len(people(done, split)) for split in ("train", "val", "test")]
    assert counts == [num_people - num_val - num_test, num_val, num_test]
    assert done.groupby("person")["split"].nunique().eq(1).all()
    assert (done["role"] == done["split"].replace("test", "")).all()


def test_what_a_set_says_stays() -> None:
    rows = [(f"p{n}", "train", "train", -1) for n in range(10)] + [("t", "test", "", -1), ("q", "test", "query", -1)]
    pictures = table(rows)
    done = held_out(complete_splits(pictures, 0.5, seed=3), 0.2)
    assert people(done, "test") == {"t", "q"} and len(people(done, "val")) == 2  # of ten
    assert done["role"].tolist()[-2:] == ["", "query"]
    given_val = table([("a", "val", "val", -1), *rows[:10]])
    assert people(held_out(given_val, 0.5), "val") == {"a"}
    assert len(people(complete_splits(given_val, 0.2, seed=3), "test")) == 2
    assert (pictures["split"] == "train").sum() == 10  # the table passed in is not changed


def test_validation_takes_people_with_a_picture_to_find_first() -> None:
    seen_twice = [(f"t{n}", "train", "train", camid) for n in range(3) for camid in (1, 2)]
    seen_once = [(f"o{n}", "train", "train", 1) for n in range(7) for _ in range(2)]
    assert people(held_out(table(seen_once + seen_twice), 0.3), "val") == {"t0", "t1", "t2"}
    assert len(people(held_out(table(seen_once + seen_twice), 0.5), "val")) == 5  # and others where these do not suffice
    without = [(f"{n}", "train", "train", -1) for n in (0, 1, 1, 2, 3, 4)]
    assert people(held_out(table(without), 0.2), "val") == {"1"}


def test_anonymous_pictures_go_to_the_gallery() -> None:
    pictures = table([("", "", "", -1), *[(f"p{n}", "", "", -1) for n in range(5)]])
    done = complete_splits(pictures, 0.2, seed=0)
    assert (done["split"][0], done["role"][0]) == ("test", "gallery")
    assert len(people(done, "test")) == 1  # the anonymous picture does not count as a test split


def test_seeds_draw_other_people() -> None:
    drawn = [people(complete_splits(unsplit(40), 0.25, seed), "test") for seed in range(2)]
    assert drawn[0] != drawn[1]
    trained = unsplit(40, split="train")
    assert people(held_out(trained, 0.25, 0), "val") != people(held_out(trained, 0.25, 1), "val")


@PROPERTY
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "c", "d", "e", "f"]),
            st.sampled_from([("", ""), ("train", "train"), ("val", "val"), ("test", ""), ("test", "gallery")]),
            st.integers(0, 2),
            st.sampled_from(["one", "two", "three", "four"]),
        ),
        min_size=1,
        max_size=30,
    ),
    cameras=st.booleans(),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.49)),
    shuffle=st.randoms(use_true_random=False),
)
def test_every_row_gets_a_split_and_a_role_whatever_the_order(rows: list, cameras: bool, shares: tuple, shuffle) -> None:
    pictures = table([(person, *where, camid if cameras else -1, pixels) for person, where, camid, pixels in rows])
    done = held_out(choose_queries(complete_splits(pictures, shares[1], seed=5), seed=5), shares[0])
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    shuffled = pictures.iloc[order].reset_index(drop=True)
    again = held_out(choose_queries(complete_splits(shuffled, shares[1], seed=5), seed=5), shares[0])
    again = again.sort_values("path", ignore_index=True)
    assert done[["path", "split", "role"]].equals(again[["path", "split", "role"]])
    assert set(zip(done["split"], done["role"])) <= {("train", "train"), ("val", "val"), ("test", "query"), ("test", "gallery")}
    for _, query in done[done["role"] == "query"].iterrows():
        matches = done[(done["role"] == "gallery") & (done["person"] == query["person"]) & (done["sha256"] != query["sha256"])]
        assert not query["anonymous"] and (not cameras or (matches["camid"] != query["camid"]).any()) and len(matches)


def roles(rows: list[tuple], seed: int = 0) -> dict[tuple, list[str]]:
    """Sorted roles of each person and camera."""
    done = choose_queries(table(rows), seed)
    return {key: sorted(group["role"]) for key, group in done.groupby(["person", "camid"])}


def test_a_query_of_each_person_and_camera() -> None:
    rows = [("a", "test", "", camid) for camid in (1, 1, 1, 2, 2)] + [("b", "test", "", 3)] * 4 + [("", "test", "", 1)]
    assert roles(rows) == {
        ("a", 1): ["gallery", "gallery", "query"],
        ("a", 2): ["gallery", "query"],
        ("b", 3): ["gallery"] * 4,  # one camera: nothing to find
        ("", 1): ["gallery"],
    }


def test_a_query_leaves_a_match_from_another_camera() -> None:
    assert sorted(sum(roles([("a", "test", "", camid) for camid in (1, 2, 3)]).values(), [])) == ["gallery", "query", "query"]
    assert roles([("a", "test", "", camid) for camid in (1, 1, 2)]) == {("a", 1): ["gallery", "gallery"], ("a", 2): ["query"]}
    assert roles([("a", "test", "", 1), ("a", "test", "gallery", 2)]) == {("a", 1): ["query"], ("a", 2): ["gallery"]}


def test_a_query_of_each_person_without_cameras() -> None:
    rows = [("a", "test", "", -1)] * 3 + [("b", "test", "", -1), ("c", "test", "query", -1), ("c", "test", "gallery", -1)]
    rows += [("d", "train", "train", -1)]
    assert roles(rows) == {
        ("a", -1): ["gallery", "gallery", "query"],
        ("b", -1): ["gallery"],
        ("c", -1): ["gallery", "query"],
        ("d", -1): ["train"],
    }


def test_a_query_is_not_its_own_match() -> None:
    """Without another picture, by another camera where there are cameras, to find in the gallery, nothing is asked."""
    twice = [("a", "test", "", -1, "one"), ("a", "test", "", -1, "one")]
    assert roles(twice) == {("a", -1): ["gallery", "gallery"]}
    assert roles([*twice, ("a", "test", "", -1, "two")]) == {("a", -1): ["gallery", "gallery", "query"]}
    for seed in range(5):
        assert roles([("a", "test", "", camid, "one") for camid in (1, 2, 3)], seed) == {
            ("a", camid): ["gallery"] for camid in (1, 2, 3)
        }
        rows = [("a", "test", "gallery", 1, "one"), ("a", "test", "", 2, "one"), ("a", "test", "gallery", 2, "two")]
        assert roles(rows, seed) == {("a", 1): ["gallery"], ("a", 2): ["gallery", "gallery"]}
        assert roles([*rows, ("a", "test", "", 3, "three")], seed)["a", 3] == ["query"]


def test_validation_takes_nobody_whose_pictures_are_one_where_others_can_be_found() -> None:
    copied = [(f"t{n}", "train", "train", camid, f"{n}") for n in range(5) for camid in (1, 2)]
    seen = [(f"o{n}", "train", "train", camid, f"{n} {camid}") for n in range(5) for camid in (1, 2)]
    assert people(held_out(table(copied + seen), 0.5), "val") == {f"o{n}" for n in range(5)}


def test_another_seed_draws_other_pictures() -> None:
    pictures = table([("a", "test", "", -1)] * 50)
    drawn = {choose_queries(pictures, seed).query("role == 'query'")["path"].item() for seed in range(5)}
    assert len(drawn) > 1


def test_cameras_for_some_pictures_alone_are_refused() -> None:
    with pytest.raises(HplError, match=r"0001.jpg: camid is missing; expected camid for all pictures of the set, or for none"):
        check_cameras(table([("a", "test", "", 1), ("a", "train", "train", -1), ("b", "test", "", -1)]))


def test_one_person_more_moves_nobody_but_at_the_edge() -> None:
    before, after = (held_out(complete_splits(unsplit(count), 0.3, 0), 0.1) for count in (50, 51))
    for split in ("test", "val"):
        assert len(people(before, split) ^ people(after, split)) <= 2
