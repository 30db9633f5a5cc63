"""How many people, pictures and captions the public sets officially have, and what it means if a copy has others."""

import pandas as pd

from hpl.tasks import DISTRACTOR_PID, JUNK_PID

# Role -> what is counted. A caption set's test pictures are its gallery; a gallery counts junk and distractors too.
# Market-1501's page gives 2,793 distractors, but its files are 13,115 of people, 3,819 junk and 2,798 distractors: not checked.
OFFICIAL: dict[str, dict[str, dict[str, int]]] = {
    "cuhk-pedes": {
        "train": {"people": 11003, "pictures": 34054, "captions": 68126},
        "val": {"people": 1000, "pictures": 3078, "captions": 6158},
        "gallery": {"people": 1000, "pictures": 3074, "captions": 6156},
    },
    "icfg-pedes": {
        "train": {"people": 3102, "pictures": 34674, "captions": 34674},
        "val": {"people": 0, "pictures": 0, "captions": 0},
        "gallery": {"people": 1000, "pictures": 19848, "captions": 19848},
    },
    "rstpreid": {
        "train": {"people": 3701, "pictures": 18505, "captions": 37010},
        "val": {"people": 200, "pictures": 1000, "captions": 2000},
        "gallery": {"people": 200, "pictures": 1000, "captions": 2000},
    },
    "market-1501": {
        "train": {"people": 751, "pictures": 12936},
        "query": {"people": 750, "pictures": 3368},
        "gallery": {"pictures": 19732},
        "junk": {"pictures": 3819},
        "all": {"cameras": 6},
    },
    "msmt17": {
        "train": {"people": 1041, "pictures": 32621},  # list_train.txt 30,248, list_val.txt 2,373
        "query": {"people": 3060, "pictures": 11659},
        "gallery": {"pictures": 82161},
        "all": {"cameras": 15},
    },
    "dukemtmc-reid": {
        "train": {"people": 702, "pictures": 16522},
        "query": {"people": 702, "pictures": 2228},
        "gallery": {"pictures": 17661},
        "all": {"cameras": 8},
    },
}
_CAUSES = {  # of a count that is known to be found in the wild
    ("market-1501", "gallery", "pictures", 15913): "junk files were removed",
    ("market-1501", "gallery", "pictures", 13115): "junk and distractor files were removed",
    ("market-1501", "gallery", "pictures", 16934): "distractor files were removed",
    ("market-1501", "junk", "pictures", 0): "junk files were removed",
    ("msmt17", "train", "pictures", 30248): "list_val.txt is missing",
    ("msmt17", "train", "pictures", 2373): "list_train.txt holds what belongs in list_val.txt",
}
_FIRST_RSTPREID = {"train": (3901, 19505, 39010), "val": (100, 500, 1000), "gallery": (100, 500, 1000)}  # its repository, issue 2
_MARKET_EXTENSION = 400_000  # Market-1501's extra distractors are about 500,000 files


def count_records(pictures: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count as OFFICIAL does. Columns: role, person, anonymous, source_pid, camid, num_captions; a row is a picture."""
    counts = {}
    for role in ("train", "val", "query", "gallery"):
        rows = pictures[pictures["role"] == role]
        people = rows.loc[~rows["anonymous"].astype(bool), "person"].nunique()
        counts[role] = {"people": int(people), "pictures": len(rows), "captions": int(rows["num_captions"].sum())}
    for name, pid in (("junk", JUNK_PID), ("distractors", DISTRACTOR_PID)):
        counts[name] = {"pictures": int((pictures["anonymous"].astype(bool) & (pictures["source_pid"] == pid)).sum())}
    counts["all"] = {"cameras": int(pictures.loc[pictures["camid"] >= 0, "camid"].nunique())}
    return counts


def count_mismatches(
    format: str, counts: dict[str, dict[str, int]], listed: dict[str, dict[str, int]] | None = None
) -> list[str]:
    """Write a sentence for each count that differs from the official one, with both numbers and the likely cause.

    A role without any picture gives one sentence. A format without official counts gives none.

    Args:
        counts: of the pictures that could be read.
        listed: likewise, of all that the set lists; None: the same.
    """
    sentences = []
    for role, expected in OFFICIAL.get(format, {}).items():
        found = {unit: counts.get(role, {}).get(unit, 0) for unit in expected}
        lost = {unit: (listed or counts).get(role, {}).get(unit, 0) - number for unit, number in found.items()}
        if role != "junk" and expected.get("pictures") and not found["pictures"]:
            officially = ", ".join(f"{number:,} {unit}" for unit, number in expected.items())
            cause = f"none of {lost['pictures']:,} could be read" if lost["pictures"] else "a folder, list or split is missing"
            sentences.append(f"{role}: 0 pictures, officially {officially}: {cause}")
            continue
        for unit, number in expected.items():
            if found[unit] != number:
                own = {name: found[name] + lost[name] for name in found}
                causes = [f"{lost[unit]:,} of those listed could not be read"] if lost[unit] else []
                causes += [_cause(format, role, unit, own, number)] if own[unit] != number else []
                cause = ", and ".join(causes)
                sentences.append(f"{role}: {found[unit]:,} {unit}, officially {number:,}: {cause}")
    return sentences


def _cause(format: str, role: str, unit: str, found: dict[str, int], expected: int) -> str:
    number = found[unit]
    if known := _CAUSES.get((format, role, unit, number)):
        return known
    if format == "rstpreid" and tuple(found.values()) == _FIRST_RSTPREID.get(role):
        return "this is the first release, whose split its authors corrected in 2022: download it again"
    if format == "icfg-pedes" and role == "val":
        return "the official set has no val; this copy cut one from another split"
    if format == "market-1501" and role == "gallery" and number - expected >= _MARKET_EXTENSION:
        return "this is the extended set with 500,000 more distractors"
    if unit == "captions" and number < expected and number == 2 * found["pictures"]:
        return "captions beyond two a picture were removed"
    if unit == "captions":
        return "captions were removed" if number < expected else "captions were added"
    if unit == "cameras":
        return "pictures of some cameras are missing" if number < expected else "file names give other cameras"
    return (
        f"{unit} are missing: the copy is incomplete" if number < expected else f"{unit} were added: the copy is no official one"
    )
