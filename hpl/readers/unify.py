"""One label for one person across data sets, and no test person in training (the paper's rule, made checkable)."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_LEARNT_FROM = ["train", "val", "pretrain"]  # splits that no test person may be in


def unify_identities(pictures: pd.DataFrame, links: pd.DataFrame) -> pd.DataFrame:
    """Give each person one `pid` from 1 and take people of any test split out of training.

    Args:
        pictures: columns dataset, person, source_pid, split, role, anonymous.
        links: columns left and right, pairs of rows that show the same shot.

    Returns:
        The table with `pid` added (anonymous rows keep their source pid) and `role` set to "dropped" where a linked person
        leaves: from training, validation and pretraining if it occurs in the test split of any set, from validation alone if it
        occurs in training, from pretraining never for that reason. Links across sets join their people. A link inside a set joins
        nobody by itself (the set says that they are two), but a test picture under a training person too takes that person out.
    """
    named = ~pictures["anonymous"].to_numpy()
    split, role = pictures["split"].to_numpy(str), pictures["role"].to_numpy(object, copy=True)
    keys = pictures["dataset"].astype(str) + "\0" + np.where(named, "person " + pictures["person"].astype(str), "nobody")
    person = pd.factorize(keys, sort=True)[0]
    dataset = pd.factorize(pictures["dataset"])[0]
    left, right = links["left"].to_numpy(np.int64), links["right"].to_numpy(np.int64)

    joins = (dataset[left] != dataset[right]) & named[left] & named[right]
    graph = coo_array((np.ones(joins.sum()), (person[left[joins]], person[right[joins]])), shape=(person.max() + 1,) * 2)
    component = connected_components(graph, directed=False)[1][person]
    pid = np.where(named, np.searchsorted(np.unique(component[named]), component) + 1, pictures["source_pid"])

    tested = set(component[named & (split == "test")])
    for one, other in ((left, right), (right, left)):  # a picture of theirs is a test picture of somebody else, or of nobody
        tested |= set(component[one[named[one] & (split[other] == "test")]])
    trained = set(component[named & (role == "train")])
    leaks = np.isin(component, list(tested)) & np.isin(split, _LEARNT_FROM)
    overlaps = np.isin(component, list(trained)) & (split == "val")
    role[named & (leaks | overlaps)] = "dropped"
    return pictures.assign(pid=pid.astype(np.int64), role=role)
