"""The preprocess stage: data sets of any format -> one picture table, one caption table, packed pictures and an account of all of it.

The schema of the tables stands in hpl/manifests/tables.py; audit.json and links.parquet tell what was read, linked, skipped and dropped.
"""

import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from hpl.config import Data, DataSet, Input, Preprocess
from hpl.files import HplError, output_folder, write_json
from hpl.manifests.shards import ShardWriter
from hpl.readers.audit import audit
from hpl.readers.caption_sets import read_cuhk_pedes, read_icfg_pedes, read_rstpreid
from hpl.readers.decoding import Store, examine_pictures, recipe, take
from hpl.readers.links import find_links
from hpl.readers.official import count_mismatches, count_records
from hpl.readers.own_data import read_folders, read_table
from hpl.readers.picture_sets import read_dukemtmc_reid, read_market1501, read_msmt17
from hpl.readers.records import PictureRecord, Reading
from hpl.readers.splits import check_cameras, choose_queries, complete_splits, hold_out_validation
from hpl.readers.unify import unify_identities

READERS: dict[str, Callable[[Path], Reading]] = {
    "cuhk-pedes": read_cuhk_pedes,
    "icfg-pedes": read_icfg_pedes,
    "rstpreid": read_rstpreid,
    "market-1501": read_market1501,
    "msmt17": read_msmt17,
    "dukemtmc-reid": read_dukemtmc_reid,
    "table": read_table,
}  # and "folders", whose reader takes an option
BLOCK = 1024  # pictures copied at a time
PACK_ROWS = 1024  # pictures a shard of the packed array
RECORDS = 8192  # records turned into columns at a time
SHOWN = 10  # bad pictures that an error names
COLUMNS = ["path", "split", "role", "person", "source_pid", "camid", "anonymous", "number"]


def build_manifests(
    raw: Path, data: Data, size: Input, options: Preprocess, num_workers: int, manifests: Path, packed: Path, store: Path
) -> None:
    """Read, check, link and pack the data sets of a profile.

    Args:
        raw: the folder that holds each data set's folder.
        manifests, packed: the two output folders, written whole or not at all.
        store: a folder that keeps what was decoded, for the next run; it changes no output.

    Raises:
        HplError: names the file or record that is wrong.
    """
    tables, sentences, datasets = [], [], {}
    for source in data.datasets:
        pictures, captions, account = read_dataset(raw / source.folder, source, options)
        datasets[source.label] = account
        tables.append(pictures.assign(dataset=source.label))
        sentences.append(captions.assign(dataset=source.label))
    if options.strict and (
        mismatches := [f"{name}: {text}" for name, account in datasets.items() for text in account["mismatches"]]
    ):
        raise HplError("\n  ".join([f"{len(mismatches)} mismatches (preprocess.strict is true)", *mismatches]))
    pictures = pd.concat(tables, ignore_index=True)
    captions = pd.concat(sentences, ignore_index=True)
    pictures = pictures.sort_values(["dataset", "path"], kind="stable", ignore_index=True)
    folder = pictures["dataset"].map({name: account["folder"] for name, account in datasets.items()})
    files = folder.astype("str") + "/" + pictures["path"]

    kept = Store(store / recipe((size.height, size.width)))
    pack = (pictures["split"] != "test").to_numpy() & options.pack_pictures
    if options.on_bad_image == "error":
        _refuse([f"{file}: picture not found" for file in files if not os.path.isfile(file)])
    digests, faults = examine_pictures(files, pack, (size.height, size.width), num_workers, kept)
    if options.on_bad_image == "error":
        _refuse(faults.tolist())
    skipped = pictures.loc[faults.index, ["dataset", "path", "split", "role"]].assign(fault=faults)
    skipped["role"] = skipped["role"].replace("", "query or gallery")
    good = ~np.isin(np.arange(len(pictures)), faults.index)
    for name, account in datasets.items():
        rows = np.flatnonzero(pictures["dataset"] == name)
        if not good[rows].any():
            raise HplError(f"{account['folder']}: none of {len(rows)} pictures can be read; the first fault: {faults[rows[0]]}")
    pictures, pack = pictures[good].reset_index(drop=True), pack[good]
    pictures = pd.concat([choose_queries(rows, options.split_seed) for _, rows in pictures.groupby("dataset", sort=True)])

    facts = kept.rows(digests[good])
    pictures = pd.concat([pictures, facts[["file_sha256", "width", "height", "sha256"]]], axis=1)
    pictures.insert(0, "image_id", np.arange(len(pictures)))
    pictures["pack_row"] = np.where(pack, np.cumsum(pack) - 1, -1)
    part, row, pack_row = (facts[name].to_numpy() for name in ("part", "row", "pack_row"))
    links = find_links(
        pictures,
        lambda rows: take(kept.fingerprints, part[rows], row[rows]),
        options.link_candidate,
        options.link_correlation,
    )
    unified = unify_identities(pictures, links)
    pictures = hold_out_validation(unified, data.val_share, options.split_seed)
    held_out = pictures[pictures["split"] != unified["split"]].groupby("dataset")["person"].nunique()
    for name, number in held_out.items():
        datasets[name]["notes"].append(
            f"held out of training, for validation: {number:,} people (data.val_share {data.val_share:g})"
        )
    if any("train" in source.use for source in data.datasets) and not (pictures["role"] == "train").any():
        raise HplError(f"{raw}: no picture is left to train on, for every person of the training splits is in a test split too")
    captions = captions.merge(pictures[["dataset", "path", "image_id"]], on=["dataset", "path"])
    captions = captions.sort_values("image_id", kind="stable", ignore_index=True)
    captions.insert(0, "caption_id", np.arange(len(captions)))
    for name, account in datasets.items():
        account["scored"] = _scored_tasks(name, account, pictures[pictures["dataset"] == name], captions)

    with output_folder(packed) as packed_partial, output_folder(manifests) as partial:
        with ShardWriter(packed_partial, "pictures", PACK_ROWS) as writer:
            for rows in _blocks(np.flatnonzero(pack)):
                writer.append(take(kept.packed, part[rows], pack_row[rows]))
        _write_tables(pictures, captions, links, partial)
        described = ("folder", "format", "version", "use", "tasks", "scored")
        accounts = [{"name": name, **{key: account[key] for key in described}} for name, account in datasets.items()]
        write_json(partial / "datasets.json", accounts)
        write_json(partial / "audit.json", audit(pictures, captions, links, skipped, datasets))
    for name, account in datasets.items():
        for text in [*account["mismatches"], *account["notes"]]:
            print(f"{name}: {text}", file=sys.stderr)
    for row in skipped.itertuples():
        print(f"skipped: {row.fault}", file=sys.stderr)


def read_dataset(root: Path, source: DataSet, options: Preprocess) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """One data set as tables: its pictures (COLUMNS but number), its captions (path, caption), and what is to be told of it."""
    reading = read_folders(root, source.camera_pattern) if source.format == "folders" else READERS[source.format](root)
    pictures, captions = _columns(reading.records)
    pictures, captions, joined = _join_duplicates(pictures, captions, reading.place or f"{root}: row")
    own, notes = source.format in ("table", "folders"), []
    if own and not (pictures["split"] != "").any() and source.use in (["test"], ["pretrain"]):
        pictures["split"] = source.use[0]
    elif own and "pretrain" not in source.use:
        test_share = options.test_share if "test" in source.use else 0.0
        pictures = complete_splits(pictures, test_share, options.split_seed)
    if own:
        try:
            check_cameras(pictures)
        except HplError as error:
            raise HplError(f"{root}: {error}") from None
        numbers = pd.factorize(pictures["person"], sort=True)[0] + 1
        notes = _on_both_sides(pictures)
        pictures["source_pid"] = pictures["source_pid"].where(pictures["anonymous"], pd.Series(numbers, pictures.index))
    mismatches = []
    if source.official and not own:
        per_picture = captions.groupby("path").size()
        counted = pictures.assign(num_captions=pictures["path"].map(per_picture).fillna(0).astype(np.int64))
        mismatches = count_mismatches(source.format, count_records(counted))
    pictures, left_out = _used(pictures, source.use)
    if pictures["role"].isin(["unused"]).all():
        raise HplError(f"{root}: no picture of the splits that `use: {source.use}` asks for")
    captions = captions[captions["path"].isin(pictures["path"])]
    account = {
        "folder": root.as_posix(),
        "format": source.format,
        "use": source.use,
        "tasks": list(reading.tasks) or (["t2i", "i2i"] if len(captions) else ["i2i"]),
        "version": reading.version,
        "mismatches": mismatches,
        "notes": [_printable(text) for text in reading.notes + _unseen_by_dvc(root) + joined + notes + left_out],
    }
    return pictures.drop(columns="number").astype({"source_pid": np.int64}), captions, account


def _on_both_sides(pictures: pd.DataFrame) -> list[str]:
    people, tested = pictures["person"], pictures["split"] == "test"
    both = sorted(set(people[tested]) & set(people[~tested]) - {""})
    return [f"people in test and in another split, such as {both[0]}, who leave the other: {len(both):,}"] if both else []


def _unseen_by_dvc(root: Path) -> list[str]:
    if not root.is_symlink():
        return []
    return [
        f"{root} is a link, and DVC does not look behind it: after a change there, `dvc repro -f -s preprocess` reads it again"
    ]


def _printable(text: str) -> str:
    """File names may hold bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()


def _scored_tasks(name: str, account: dict, pictures: pd.DataFrame, captions: pd.DataFrame) -> list[str]:
    """The tasks that the set's test split can be scored for. HplError if it is none, or if a set that is made for a task lacks it."""
    if "test" not in account["use"]:
        return []
    test = pictures[pictures["split"] == "test"]
    there = {
        "t2i": captions["image_id"].isin(test.loc[~test["anonymous"], "image_id"]).any(),
        "i2i": (test["role"] == "query").any() and (test["role"] == "gallery").any(),
    }
    scored = [task for task in account["tasks"] if there[task]]
    if not scored or (len(scored) < len(account["tasks"]) and account["format"] not in ("table", "folders")):
        raise HplError(
            f"data set {name}: its test split of {len(test)} pictures cannot be scored; expected captions of test pictures (t2i), or people "
            "with a query and a gallery picture, of two cameras if cameras are given (i2i); or `use` without test"
        )
    account["notes"] += [f"the test split cannot be scored for {task}" for task in account["tasks"] if task not in scored]
    return scored


def _columns(records: Iterator[PictureRecord]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records -> columns, a block at a time, so that a large set never stands whole in Python objects."""
    pictures, captions = [], []
    waiting = iter(records)
    while block := list(islice(waiting, RECORDS)):
        columns = {name: [getattr(record, name) for record in block] for name in COLUMNS}
        types = {name: "str" for name in ("path", "split", "role", "person")} | {"source_pid": "Int64"}
        pictures.append(pd.DataFrame(columns).astype(types))
        pairs = [(record.path, caption, record.number) for record in block for caption in record.captions]
        captions.append(pd.DataFrame(pairs, columns=["path", "caption", "number"]).astype({"path": "str", "caption": "str"}))
    if not pictures:
        return pd.DataFrame({name: [] for name in COLUMNS}), pd.DataFrame({"path": [], "caption": [], "number": []}, dtype="str")
    return pd.concat(pictures, ignore_index=True), pd.concat(captions, ignore_index=True)


def _join_duplicates(pictures: pd.DataFrame, captions: pd.DataFrame, place: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Rows of one picture become one, with all its captions; HplError if they disagree on the person, split or camera."""
    again = pictures[pictures.duplicated("path", keep=False)]
    if again.empty:
        return pictures, captions.drop(columns="number"), []
    firsts = again.groupby("path", sort=False)[COLUMNS].transform("first")
    for column in ("person", "split", "role", "camid"):
        differs = np.flatnonzero((again[column] != firsts[column]).to_numpy())
        if len(differs):
            row, first = again.iloc[differs[0]], firsts.iloc[differs[0]]
            raise HplError(
                f"{place} {first['number']} and {row['number']}: the same picture {row['path']!r} with {column} "
                f"{_plain(first[column])!r} and {_plain(row[column])!r}; expected one"
            )
    kept = pictures.drop_duplicates("path", ignore_index=True)
    first_number = captions.groupby(["path", "caption"], sort=False)["number"].transform("first")
    repeated = captions["path"].isin(again["path"]) & (captions["number"] != first_number)
    notes = [f"{len(pictures) - len(kept):,} rows that name a picture once more were joined with its first"]
    if repeated.any():
        notes.append(f"{int(repeated.sum()):,} captions that these rows repeat were left out")
    return kept, captions[~repeated].drop(columns="number").reset_index(drop=True), notes


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _used(pictures: pd.DataFrame, use: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The rows that this run needs. Test people of a set that is not evaluated stay, as "unused": nobody may train on them."""
    if use == ["pretrain"]:
        learnt = pictures["split"].isin(["train", "pretrain", ""]) & ~pictures["anonymous"]
        kept = pictures.assign(split=pictures["split"].mask(learnt, "pretrain"), role="unused")
        kept["role"] = kept["role"].mask(learnt, "pretrain")
        kept = kept[learnt | (kept["split"] == "test")]
    elif "train" not in use:
        kept = pictures[pictures["split"] == "test"]
    elif "test" not in use:
        kept = pictures.assign(role=pictures["role"].mask(pictures["split"] == "test", "unused"))
    else:
        kept = pictures
    left_out = len(pictures) - len(kept)
    notes = [f"{left_out:,} pictures of splits that `use: {use}` does not ask for were left out"] if left_out else []
    return kept.reset_index(drop=True), notes


def _refuse(faults: list[str]) -> None:
    """HplError that names the first of some bad pictures, if there are any."""
    hint = "preprocess.on_bad_image: skip leaves such pictures out and lists them in the audit"
    if len(faults) == 1:
        raise HplError(f"{faults[0]} ({hint})")
    if faults:
        more = [f"and {len(faults) - SHOWN:,} more"] if len(faults) > SHOWN else []
        raise HplError("\n  ".join([f"{len(faults):,} bad pictures ({hint})", *faults[:SHOWN], *more]))


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def _write_tables(pictures: pd.DataFrame, captions: pd.DataFrame, links: pd.DataFrame, folder: Path) -> None:
    columns = "image_id dataset path split role pid source_pid person camid width height file_sha256 sha256 pack_row".split()
    pictures[columns].to_parquet(folder / "images.parquet", index=False)
    captions[["caption_id", "image_id", "caption"]].to_parquet(folder / "captions.parquet", index=False)
    links.to_parquet(folder / "links.parquet", index=False)
