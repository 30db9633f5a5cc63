"""What the figures of a task are made of: queries by camera, by what the person wears, and which queries a reader is shown.

Scores have a row a query: dataset, caption_id or query_image_id, pid, camid, first_rank (0: skipped), ap and inp (0..1).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.files import read_json
from hpl.manifests.tables import Manifests
from hpl.tasks import JUNK_PID, Task

_TINTS = "tints"  # of an identity: numbers, not a name


def pick_examples(scores: pd.DataFrame, key: str, count: int, seed: int) -> dict[str, pd.DataFrame]:
    """Pick the rows of `scores` that are shown as "best", "worst" and "random": at most `count` of each, each of another person.

    Best have the highest average precision, worst the lowest, ties by the query's id; random are drawn by `seed` from the rest.
    """
    rest = scores[scores["first_rank"] > 0].sort_values(key)
    orders = {
        "best": lambda rows: rows.sort_values("ap", ascending=False, kind="stable"),
        "worst": lambda rows: rows.sort_values("ap", kind="stable"),
        "random": lambda rows: rows.iloc[np.random.default_rng(seed).permutation(len(rows))],
    }
    chosen = {}
    for name, order in orders.items():
        chosen[name] = order(rest).drop_duplicates("pid").head(count)
        rest = rest[~rest["pid"].isin(chosen[name]["pid"])]
    return chosen


def figures_by(scores: pd.DataFrame, by: str) -> pd.DataFrame:
    """Count the scored queries, and average rank1 and mAP in percent over them, for each value of a column."""
    scored = scores[scores["first_rank"] > 0]
    groups = scored.assign(rank1=100.0 * (scored["first_rank"] == 1), mAP=100 * scored["ap"]).groupby(by)
    return groups[["rank1", "mAP"]].mean().assign(num_queries=groups.size())


def read_attributes(tables: Manifests, dataset: str) -> pd.DataFrame:
    """Read what a set's attributes.json says of its pictures: index image_id, a column an attribute; no row if the set has none.

    The bundled set has one (hpl/synthetic/write.py). Clothes and hair belong to the person; bag and so on to the picture.
    """
    images = tables.images[tables.images["dataset"] == dataset]
    file = Path(tables.datasets[dataset]["folder"]) / "attributes.json"
    if not file.is_file():
        return pd.DataFrame()
    known = read_json(file)
    rows = {}
    for image_id, path in zip(images["image_id"], images["path"], strict=True):
        row = known.get(path, {})
        if row.get("identity"):
            rows[image_id] = {**row["identity"], "bag": row["instance"]["bag"]}
    return pd.DataFrame.from_dict(rows, orient="index").drop(columns=_TINTS, errors="ignore")


def first_found(lists: pd.DataFrame, scores: pd.DataFrame, tables: Manifests, task: Task) -> pd.DataFrame:
    """Pair the picture that each scored query asks about (`asked`) with the one found first (`found`); `match`: of one person."""
    key = task.query_key
    first = lists[lists["rank"] == 1].merge(scores.loc[scores["first_rank"] > 0, [key, "first_rank", "ap"]], on=key)
    picture_of = tables.captions.set_index("caption_id")["image_id"]
    asked = picture_of.reindex(first[key]).to_numpy() if task.by_caption else first[key]
    return first.assign(asked=asked, found=first["image_id"])[[key, "asked", "found", "match", "first_rank", "ap"]]


def agreement(first: pd.DataFrame, attributes: pd.DataFrame, tables: Manifests) -> pd.DataFrame:
    """Measure how often the wrong person found first shares an attribute with the person asked about, against chance.

    Chance: the share of the set's test pictures of other people that have the attribute's value, averaged over the same queries.

    Returns:
        A row an attribute, which `found` shares most beyond chance first: shared and chance in percent, num_wrong queries.
    """
    wrong = first[~first["match"] & first["asked"].isin(attributes.index) & first["found"].isin(attributes.index)]
    if wrong.empty:
        return pd.DataFrame(columns=["shared", "chance", "num_wrong"])
    images = tables.images.loc[attributes.index]
    gallery = images[(images["split"] == "test") & (images["pid"] != JUNK_PID)]
    values = attributes.loc[gallery["image_id"]]
    others = gallery["pid"].to_numpy() != images.loc[wrong["asked"], "pid"].to_numpy()[:, None]
    rows = {}
    for name in attributes:
        asked, found = (attributes.loc[wrong[side], name].to_numpy() for side in ("asked", "found"))
        same = (values[name].to_numpy() == asked[:, None]) & others
        chance = same.sum(axis=1) / others.sum(axis=1)
        rows[name] = {"shared": 100 * np.mean(asked == found), "chance": 100 * np.mean(chance), "num_wrong": len(wrong)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.iloc[np.argsort(-(table["shared"] - table["chance"]).to_numpy(), kind="stable")]


def confusion(first: pd.DataFrame, attributes: pd.DataFrame, name: str) -> pd.DataFrame:
    """Count queries by an attribute's value asked for (rows) and found first (columns), frequent values first."""
    known = first[first["asked"].isin(attributes.index) & first["found"].isin(attributes.index)]
    asked, found = (attributes.loc[known[side], name].to_numpy() for side in ("asked", "found"))
    counts = pd.crosstab(pd.Series(asked, name="asked"), pd.Series(found, name="found"))
    order = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index.tolist()
    order += [value for value in counts.columns if value not in order]
    return counts.reindex(index=order, columns=order, fill_value=0)
