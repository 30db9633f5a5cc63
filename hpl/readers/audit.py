"""What was read, linked, skipped and dropped, as numbers."""

import pandas as pd

from hpl.tasks import T2I

_NUM_EXAMPLES = 20  # examples kept of each kind


def audit(
    pictures: pd.DataFrame, captions: pd.DataFrame, links: pd.DataFrame, skipped: pd.DataFrame, datasets: dict[str, dict]
) -> dict:
    """Make the content of audit.json.

    Args:
        pictures: rows of images.parquet and `anonymous`, after links were followed.
        captions: rows of captions.parquet, with dataset.
        links: rows of links.parquet.
        skipped: bad pictures: dataset, path, split, role, fault.
        datasets: for each set its folder, format, version, mismatches, notes and query_copies.
    """
    place = pictures["dataset"].astype(str) + "/" + pictures["path"].astype(str)
    joined = links.join(pictures["dataset"].rename("left_dataset"), on="left")
    joined = joined.join(pictures["dataset"].rename("right_dataset"), on="right")
    across = joined["left_dataset"] != joined["right_dataset"]
    named = pictures[~pictures["anonymous"]]
    sources = named.drop_duplicates(["dataset", "person"])
    dropped = named[named["role"] == "dropped"]
    return {
        "datasets": {
            name: {
                **{key: account[key] for key in ("folder", "format", "version", "use", "tasks", "mismatches", "notes")},
                "counts": _counts(pictures[pictures["dataset"] == name], captions),
                "cameras_a_person": _cameras(named[named["dataset"] == name]),
                "captions": _captions(named[named["dataset"] == name], captions, T2I.name in account["tasks"]),
                "duplicates": _duplicates(pictures[pictures["dataset"] == name], place),
            }
            | ({"query_copies": account["query_copies"]} if account["query_copies"] else {})
            for name, account in datasets.items()
        },
        "links": {
            f"{left} + {right}": {kind: int((rows["kind"] == kind).sum()) for kind in ("exact", "perceptual")}
            for (left, right), rows in joined[across].groupby(["left_dataset", "right_dataset"], sort=True)
        },
        "people": {
            "in_all_sets": len(sources),
            "unified": int(named["pid"].nunique()),
            "merged": int(len(sources) - named["pid"].nunique()),
            "of_one_set_merged": int(len(sources) - len(sources.drop_duplicates(["dataset", "pid"]))),
            "dropped_from_training": int(dropped.loc[dropped["split"] == "train", "pid"].nunique()),
            "dropped_from_validation": int(dropped.loc[dropped["split"] == "val", "pid"].nunique()),
            "dropped_from_pretraining": int(dropped.loc[dropped["split"] == "pretrain", "pid"].nunique()),
        },
        "skipped_pictures": [
            {"dataset": row.dataset, "path": row.path, "split": row.split, "role": row.role, "fault": row.fault}
            for row in skipped.itertuples()
        ],
    }


def _counts(pictures: pd.DataFrame, captions: pd.DataFrame) -> dict:
    """Count people, pictures and captions for each split and role."""
    per_picture = captions.groupby("image_id").size()
    counts: dict = {}
    for (split, role), rows in pictures.groupby(["split", "role"], sort=True):
        entry = {
            "people": int(rows.loc[~rows["anonymous"], "person"].nunique()),
            "pictures": len(rows),
            "captions": int(rows["image_id"].map(per_picture).fillna(0).sum()),
        }
        if rows["anonymous"].any():
            entry |= {
                "junk": int((rows["source_pid"] == -1).sum()),
                "distractors": int((rows["anonymous"] & (rows["source_pid"] == 0)).sum()),
            }
        counts.setdefault(split, {})[role] = entry
    return counts


def _cameras(named: pd.DataFrame) -> dict:
    """Count cameras, and the people who were seen by 1, 2, ... of them; empty where cameras are not known."""
    known = named[named["camid"] >= 0]
    if known.empty:
        return {}
    seen = known.groupby("person")["camid"].nunique().value_counts().sort_index()
    return {"num_cameras": int(known["camid"].nunique()), "people": {str(count): int(people) for count, people in seen.items()}}


def _captions(named: pd.DataFrame, captions: pd.DataFrame, expected: bool) -> dict:
    """Count pictures without a caption, and captions of several people; empty for a set that has none by nature."""
    own = captions.merge(named[["image_id", "person"]], on="image_id")
    if not expected:
        return {}
    people = own.groupby("caption")["person"].nunique()
    shared = people[people > 1].sort_values(ascending=False, kind="stable")
    return {
        "num_captions": len(own),
        "pictures_without": int((~named["image_id"].isin(own["image_id"])).sum()),
        "shared_by_several_people": {
            "sentences": len(shared),
            "captions": int(own["caption"].isin(shared.index).sum()),
            "examples": [{"caption": caption, "people": int(count)} for caption, count in shared.head(_NUM_EXAMPLES).items()],
        },
    }


def _duplicates(pictures: pd.DataFrame, place: pd.Series) -> dict:
    """Count pictures that stand in a set once more, pixel for pixel, each compared with the first of its kind."""
    again = pictures[pictures.duplicated("sha256", keep=False)]
    first = again.groupby("sha256", sort=False)[["image_id", "person", "split"]].transform("first")
    again, first = again[again["image_id"] != first["image_id"]], first[again["image_id"] != first["image_id"]]
    people, splits = again["person"] != first["person"], again["split"] != first["split"]
    shown = again.index[people | splits][:_NUM_EXAMPLES]
    return {
        "pictures": len(again),
        "under_another_person": int(people.sum()),
        "in_another_split": int(splits.sum()),
        "examples": [[place[first.at[row, "image_id"]], place[row]] for row in shown],
    }
