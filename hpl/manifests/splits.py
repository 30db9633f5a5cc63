"""Splits and queries for data that comes without: by identity, drawn from a seed, whatever the order of the rows."""

import hashlib

import numpy as np
import pandas as pd

from hpl.files import HplError

TEST, VAL, QUERY = range(3)  # what is drawn: each has a stream of its own


def complete_splits(pictures: pd.DataFrame, val_share: float, test_share: float, seed: int) -> pd.DataFrame:
    """Take the splits that a set lacks, test and then val, from its training people; without any split that is everybody.

    Args:
        pictures: columns person, split, role, anonymous; a row is a picture. Split "" is unknown.
        val_share, test_share: how many of all named people move, rounded; at least one if there are three to choose from,
            never all; 0 makes no such split.

    Returns:
        The table with `split` and `role` filled, the role of test pictures excepted: see choose_queries. Who moves is drawn by a hash of the
        name, so that with one person more, the others stay where they are, but for one or two at the edge.
    """
    split, role = pictures["split"].to_numpy(object, copy=True), pictures["role"].to_numpy(object, copy=True)
    person, named = pictures["person"].to_numpy(object), ~pictures["anonymous"].to_numpy(bool)
    num_people = len(set(person[named]))
    unknown = split == ""
    split[unknown & named] = role[unknown & named] = "train"
    split[unknown & ~named], role[unknown & ~named] = "test", "gallery"
    for name, new_role, share, kind in (("test", "", test_share, TEST), ("val", "val", val_share, VAL)):
        if (named & (split == name)).any():
            continue
        candidates = sorted(set(person[named & (split == "train")]) - set(person[named & (split != "train")]))
        num_moved = round(share * num_people)
        if share > 0 and len(candidates) >= 3:
            num_moved = max(num_moved, 1)
        num_moved = max(min(num_moved, len(candidates) - 1), 0)
        drawn = sorted(candidates, key=lambda name: hashlib.sha256(f"{seed} {kind} {name}".encode()).digest())[:num_moved]
        moved = named & pictures["person"].isin(drawn).to_numpy(bool)
        split[moved], role[moved] = name, new_role
    return pictures.assign(split=split, role=role)


def choose_queries(pictures: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Make each test picture without a role a query or a gallery picture.

    With cameras one picture of each person and camera is drawn, without cameras one of each person. It becomes a query if the
    gallery keeps a picture of that person, from another camera if there are cameras.

    Args:
        pictures: columns path (unique), person, split, role, anonymous, camid.

    Raises:
        HplError: some pictures have a camera and some have none.
    """
    camid, person = pictures["camid"].to_numpy(), pictures["person"].to_numpy(object)
    has_cameras = bool((camid >= 0).any())
    if has_cameras and (camid < 0).any():
        raise HplError(
            f"{pictures['path'][camid < 0].min()}: camid is missing; expected camid for all pictures of the set, or for none"
        )
    role = pictures["role"].to_numpy(object, copy=True)
    in_test = (pictures["split"] == "test").to_numpy(bool)
    named = ~pictures["anonymous"].to_numpy(bool)
    unknown = in_test & (role == "")
    role[unknown] = "gallery"

    candidates = np.flatnonzero(unknown & named)
    candidates = candidates[np.argsort(pictures["path"].to_numpy(object)[candidates])]
    drawn: dict[tuple, int] = {}
    for row in np.random.default_rng([seed, QUERY]).permutation(candidates):
        drawn.setdefault((person[row], camid[row]), row)
    role[list(drawn.values())] = "query"

    cameras_left: dict[str, set[int]] = {}  # of each person in the gallery
    for row in np.flatnonzero(in_test & named & (role == "gallery")):
        cameras_left.setdefault(person[row], set()).add(camid[row])
    for (who, camera), row in drawn.items():
        if who not in cameras_left:  # every picture of the person was drawn: the first stays
            cameras_left[who] = {camera}
            role[row] = "gallery"
    for (who, camera), row in drawn.items():
        if has_cameras and cameras_left[who] == {camera}:
            role[row] = "gallery"
    return pictures.assign(role=role)
