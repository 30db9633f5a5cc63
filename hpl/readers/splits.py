"""Splits for data that comes without: by identity, drawn from a seed, whatever the order of the rows."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from hpl.files import HplError

_TEST, _VAL = range(2)  # what is drawn: each has a stream of its own; 2 is that of choose_queries


def complete_splits(pictures: pd.DataFrame, test_share: float, seed: int) -> pd.DataFrame:
    """Fill unknown splits: training, but for a test split where the set has none.

    Args:
        pictures: columns person, split, role, anonymous; a row is a picture. Split "" is unknown.
        test_share: how many of all named people move to test, rounded; at least one of three or more, never all; 0: nobody.

    Returns:
        The table with `split` and `role` filled, the role of test pictures excepted: see choose_queries.
    """
    split, role = pictures["split"].to_numpy(object, copy=True), pictures["role"].to_numpy(object, copy=True)
    person, named = pictures["person"].to_numpy(object), ~pictures["anonymous"].to_numpy(bool)
    unknown = split == ""
    split[unknown & named] = role[unknown & named] = "train"
    split[unknown & ~named], role[unknown & ~named] = "test", "gallery"
    if not (named & (split == "test")).any():
        candidates = set(person[named & (split == "train")]) - set(person[named & (split != "train")])
        num_moved = min(_num_moved(test_share, len(set(person[named])), len(candidates)), len(candidates) - 1)
        moved = named & pictures["person"].isin(_in_drawn_order(candidates, seed, _TEST)[: max(num_moved, 0)]).to_numpy(bool)
        split[moved], role[moved] = "test", ""
    return pictures.assign(split=split, role=role)


def hold_out_validation(pictures: pd.DataFrame, val_share: float, seed: int) -> pd.DataFrame:
    """Make a validation split, from training people, in each set that trains and has none.

    It comes after people are linked: only people of one set move, for whoever is in another as well is trained on all the same.
    Those with a picture to find come first: two pictures of other pixels, and of two cameras where these are known.

    Args:
        pictures: columns dataset, person, pid, split, role, anonymous, camid, sha256; a row is a picture.
        val_share: how many of a set's training people move, rounded; at least one of three or more, never all; 0: nobody.
    """
    split, role = pictures["split"].to_numpy(object, copy=True), pictures["role"].to_numpy(object, copy=True)
    named = pictures[~pictures["anonymous"].to_numpy(bool)]
    num_sets = named.groupby("pid")["dataset"].nunique()
    for _, rows in named.groupby("dataset"):
        if (rows["split"] == "val").any():
            continue
        people = (
            rows[rows["role"] == "train"]
            .groupby("person")
            .agg(pid=("pid", "first"), num_pictures=("sha256", "nunique"), num_cameras=("camid", "nunique"))
        )
        candidates = people[people["pid"].map(num_sets) == 1]
        findable = candidates["num_pictures"] >= 2
        if (rows["camid"] >= 0).any():
            findable &= candidates["num_cameras"] >= 2
        order = _in_drawn_order(candidates.index[findable], seed, _VAL) + _in_drawn_order(candidates.index[~findable], seed, _VAL)
        num_moved = min(_num_moved(val_share, len(people), len(candidates)), len(people) - 1)
        moved = rows.index[rows["person"].isin(order[: max(num_moved, 0)])]
        split[moved] = role[moved] = "val"
    return pictures.assign(split=split, role=role)


def _num_moved(share: float, num_people: int, num_candidates: int) -> int:
    return max(round(share * num_people), int(share > 0 and num_candidates >= 3))


def _in_drawn_order(people: Iterable[str], seed: int, kind: int) -> list[str]:
    """Sort by a hash of the name, so that with one person more the others stay where they are, but for one or two at the edge."""
    return sorted(people, key=lambda name: hashlib.sha256(f"{seed} {kind} {name}".encode()).digest())


def check_cameras(pictures: pd.DataFrame) -> None:
    """Raise HplError if some pictures of a set have a camera and some have none."""
    unknown = pictures["camid"] < 0
    if unknown.any() and not unknown.all():
        first = pictures["path"][unknown].min()
        raise HplError(f"{first}: camid is missing; expected camid for all pictures of the set, or for none")
