"""The preprocess stage: data sets of any format -> a table of pictures, one of captions, packed pictures, and an account of all.

The schema of the tables stands in hpl/manifests/tables.py; audit.json and links.parquet tell what was read, linked and dropped.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from hpl.config import Data, DataSet, Params, Preprocess
from hpl.files import HplError, output_folder, readable, write_json, write_sums
from hpl.manifests.shards import ShardWriter
from hpl.manifests.tables import choose_queries
from hpl.readers.audit import audit
from hpl.readers.caption_sets import read_cuhk_pedes, read_icfg_pedes, read_rstpreid
from hpl.readers.copies import tell_query_copies
from hpl.readers.decoding import Store, fill_store, recipe, take
from hpl.readers.links import Fingerprints, find_links
from hpl.readers.official import count_mismatches, count_records
from hpl.readers.own_data import read_folders, read_table
from hpl.readers.picture_sets import read_dukemtmc_reid, read_market1501, read_msmt17
from hpl.readers.records import PictureRecord, Reading
from hpl.readers.splits import check_cameras, complete_splits, hold_out_validation
from hpl.readers.unify import unify_identities
from hpl.tasks import I2I, T2I

READERS: dict[str, Callable[..., Reading]] = {  # by config.Format; called with the set's folder
    "cuhk-pedes": read_cuhk_pedes,
    "icfg-pedes": read_icfg_pedes,
    "rstpreid": read_rstpreid,
    "market-1501": read_market1501,
    "msmt17": read_msmt17,
    "dukemtmc-reid": read_dukemtmc_reid,
    "table": read_table,
    "folders": read_folders,
}
_SHARD_ROWS = 1024  # pictures a shard of the packed array, copied at a time
_RECORD_BLOCK = 8192  # records turned into columns at a time
_NUM_NAMED = 10  # bad pictures that an error names
_RECORD_COLUMNS = ["path", "split", "role", "person", "source_pid", "camid", "anonymous", "number"]


def build_manifests(raw: Path, params: Params, manifests: Path, packed: Path, kept: Path) -> None:
    """Read, check, link and pack the data sets of a profile.

    Args:
        raw: the folder that holds each data set's folder.
        manifests, packed: the two output folders, written whole or not at all.
        kept: a folder that keeps what was decoded, for the next run; it changes no output.

    Raises:
        HplError: names the file or record that is wrong.
    """
    data, options, size = params.active.data, params.preprocess, (params.active.input.height, params.active.input.width)
    pictures, captions, accounts = _read_datasets(raw, data, options)
    store = Store(kept / recipe(size))
    pictures, digests, skipped = _decode(pictures, accounts, store, params)
    pictures = _add_facts(pictures, store.rows(digests))
    pictures = pd.concat([choose_queries(rows, options.split_seed) for _, rows in pictures.groupby("dataset", sort=True)])
    pictures, links = _link_people(pictures, accounts, store, data, options)
    if any("train" in source.use for source in data.datasets) and not (pictures["role"] == "train").any():
        raise HplError(f"{raw}: no picture is left to train on, for every person of the training splits is in a test split too")
    captions = captions.merge(pictures[["dataset", "path", "image_id"]], on=["dataset", "path"])
    captions = captions.sort_values("image_id", kind="stable", ignore_index=True)
    captions.insert(0, "caption_id", np.arange(len(captions)))
    for name, account in accounts.items():
        account["scored"] = _scored_tasks(name, account, pictures[pictures["dataset"] == name], captions)
    tell_query_copies(pictures, accounts, _fingerprints(pictures, store), options)
    with output_folder(packed) as packed_partial, output_folder(manifests) as partial:
        _pack(pictures, store, packed_partial)
        _write_tables(pictures, captions, links, accounts, partial)
        write_json(partial / "audit.json", audit(pictures, captions, links, skipped, accounts))
        write_sums(partial)
    for name, account in accounts.items():
        for text in [*account["mismatches"], *account["notes"]]:
            print(readable(f"{name}: {text}"), file=sys.stderr)
    for row in skipped.itertuples():
        print(readable(f"skipped: {row.fault}"), file=sys.stderr)


def _read_datasets(raw: Path, data: Data, options: Preprocess) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, dict]]:
    """Read all data sets: pictures, sorted by dataset and path; captions; and the account of each set by its name."""
    tables, sentences, accounts = [], [], {}
    for source in data.datasets:
        pictures, captions, accounts[source.label] = read_dataset(raw / source.folder, source, options)
        tables.append(pictures.assign(dataset=source.label))
        sentences.append(captions.assign(dataset=source.label))
    mismatches = [f"{name}: {text}" for name, account in accounts.items() for text in account["mismatches"]]
    if options.strict and mismatches:
        raise HplError("\n  ".join([f"{len(mismatches)} mismatches (preprocess.strict is true)", *mismatches]))
    pictures = pd.concat(tables, ignore_index=True).sort_values(["dataset", "path"], kind="stable", ignore_index=True)
    return pictures, pd.concat(sentences, ignore_index=True), accounts


def _decode(
    pictures: pd.DataFrame, accounts: dict[str, dict], store: Store, params: Params
) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame]:
    """Have all pictures in the store. Returns the good ones, with what to `pack`; their digests; the skipped ones."""
    folder = pictures["dataset"].map({name: account["folder"] for name, account in accounts.items()})
    files = folder.astype("str") + "/" + pictures["path"]
    pictures = pictures.assign(pack=(pictures["split"] != "test").to_numpy() & params.preprocess.pack_pictures)
    all_good = params.preprocess.on_bad_image == "error"
    if all_good:
        _refuse([f"{file}: picture not found" for file in files if not os.path.isfile(file)])
    size = (params.active.input.height, params.active.input.width)
    digests, faults = fill_store(files, pictures["pack"].to_numpy(), size, params.worker_processes, store)
    if all_good:
        _refuse(faults.tolist())
    skipped = pictures.loc[faults.index, ["dataset", "path", "split", "role"]].assign(fault=faults)
    skipped["role"] = skipped["role"].replace("", "query or gallery")
    good = ~np.isin(np.arange(len(pictures)), faults.index)
    for name, account in accounts.items():
        rows = np.flatnonzero(pictures["dataset"] == name)
        if not good[rows].any():
            raise HplError(f"{account['folder']}: none of {len(rows)} pictures can be read; the first fault: {faults[rows[0]]}")
    return pictures[good].reset_index(drop=True), digests[good], skipped


def _add_facts(pictures: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Add image_id, facts, place in the store (part, row, copy_row) and place among the packed pictures (pack_row)."""
    pack = pictures["pack"].to_numpy()
    pictures = pd.concat([pictures, facts.rename(columns={"pack_row": "copy_row"})], axis=1)
    return pictures.assign(image_id=np.arange(len(pack)), pack_row=np.where(pack, np.cumsum(pack) - 1, -1))


def _link_people(
    pictures: pd.DataFrame, accounts: dict[str, dict], store: Store, data: Data, options: Preprocess
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find links; give each person one pid and a place in training, validation or test, and note who was held out."""
    links = find_links(pictures, _fingerprints(pictures, store), options.link_candidate, options.link_correlation)
    unified = unify_identities(pictures, links)
    pictures = hold_out_validation(unified, data.val_share, options.split_seed)
    held_out = pictures[pictures["split"] != unified["split"]].groupby("dataset")["person"].nunique()
    for name, number in held_out.items():
        accounts[name]["notes"].append(
            f"held out of training, for validation: {number:,} people (data.val_share {data.val_share:g})"
        )
    return pictures, links


def _fingerprints(pictures: pd.DataFrame, store: Store) -> Fingerprints:
    part, row = pictures["part"].to_numpy(), pictures["row"].to_numpy()
    return lambda rows: take(store.fingerprints, part[rows], row[rows])


def read_dataset(root: Path, source: DataSet, options: Preprocess) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Read one data set: pictures (_RECORD_COLUMNS but number), captions (path, caption), and what is to be told of it."""
    reading = READERS[source.format](root, **source.model_dump(include={"camera_pattern"}, exclude_none=True))
    pictures, captions = _columns(reading.records)
    pictures, captions, joined = _join_duplicates(pictures, captions, reading.place or f"{root}: row")
    notes, mismatches = list[str](), []
    if reading.own_data:
        pictures, notes = _complete_own(pictures, root, source.use, options)
    elif source.official:
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
        "own_data": reading.own_data,
        "use": source.use,
        "tasks": list(reading.tasks) or ([T2I.name, I2I.name] if len(captions) else [I2I.name]),
        "version": reading.version,
        "mismatches": mismatches,
        "notes": [_printable(text) for text in reading.notes + _unseen_by_dvc(root) + joined + notes + left_out],
    }
    return pictures.drop(columns="number").astype({"source_pid": np.int64}), captions, account


def _complete_own(pictures: pd.DataFrame, root: Path, use: Sequence[str], options: Preprocess) -> tuple[pd.DataFrame, list[str]]:
    """Fill in what a user's own set may leave open, splits and the numbers of people, and note who is in several splits."""
    if not (pictures["split"] != "").any() and use in (["test"], ["pretrain"]):
        pictures["split"] = use[0]
    elif "pretrain" not in use:
        pictures = complete_splits(pictures, options.test_share if "test" in use else 0.0, options.split_seed)
    try:
        check_cameras(pictures)
    except HplError as error:
        raise HplError(f"{root}: {error}") from None
    people, tested = pictures["person"], pictures["split"] == "test"
    numbers = pd.Series(pd.factorize(people, sort=True)[0] + 1, pictures.index)
    pictures["source_pid"] = pictures["source_pid"].where(pictures["anonymous"], numbers)
    both = sorted(set(people[tested]) & set(people[~tested]) - {""})
    notes = [f"people in test and in another split, such as {both[0]}, who leave the other: {len(both):,}"] if both else []
    return pictures, notes


def _unseen_by_dvc(root: Path) -> list[str]:
    note = f"{root} is a link, and DVC does not look behind it: after a change there, `dvc repro -f -s preprocess` reads it again"
    return [note] if root.is_symlink() else []


def _printable(text: str) -> str:
    """Escape bytes that are no text, which file names may hold."""
    return text.encode(errors="backslashreplace").decode()


def _scored_tasks(name: str, account: dict, pictures: pd.DataFrame, captions: pd.DataFrame) -> list[str]:
    """List the tasks that a set's test split can be scored for; HplError if none, or if a set made for a task cannot serve it."""
    if "test" not in account["use"]:
        return []
    test = pictures[pictures["split"] == "test"]
    there = {
        T2I.name: captions["image_id"].isin(test.loc[~test["anonymous"], "image_id"]).any(),
        I2I.name: (test["role"] == "query").any() and (test["role"] == "gallery").any(),
    }
    scored = [task for task in account["tasks"] if there[task]]
    if not scored or (len(scored) < len(account["tasks"]) and not account["own_data"]):
        raise HplError(
            f"data set {name}: its test split of {len(test)} pictures cannot be scored; expected captions of test pictures (t2i),"
            " or people with a query and a gallery picture, of two cameras if cameras are given (i2i); or `use` without test"
        )
    account["notes"] += [f"the test split cannot be scored for {task}" for task in account["tasks"] if task not in scored]
    return scored


def _columns(records: Iterable[PictureRecord]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn records into columns, a block at a time, so that a large set never stands whole in Python objects."""
    pictures, captions = [], []
    waiting = iter(records)
    while block := list(islice(waiting, _RECORD_BLOCK)):
        columns = {name: [getattr(record, name) for record in block] for name in _RECORD_COLUMNS}
        types = {name: "str" for name in ("path", "split", "role", "person")} | {"source_pid": "Int64"}
        pictures.append(pd.DataFrame(columns).astype(types))
        pairs = [(record.path, caption, record.number) for record in block for caption in record.captions]
        captions.append(pd.DataFrame(pairs, columns=["path", "caption", "number"]).astype({"path": "str", "caption": "str"}))
    if not pictures:
        return pd.DataFrame({name: [] for name in _RECORD_COLUMNS}), pd.DataFrame(
            {"path": [], "caption": [], "number": []}, dtype="str"
        )
    return pd.concat(pictures, ignore_index=True), pd.concat(captions, ignore_index=True)


def _join_duplicates(pictures: pd.DataFrame, captions: pd.DataFrame, place: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Join rows of one picture, with all its captions; HplError if they disagree on the person, split or camera."""
    again = pictures[pictures.duplicated("path", keep=False)]
    if again.empty:
        return pictures, captions.drop(columns="number"), []
    firsts = again.groupby("path", sort=False)[_RECORD_COLUMNS].transform("first")
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


def _used(pictures: pd.DataFrame, use: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Keep the rows that this run needs. Test people of a set that is not evaluated stay, "unused": nobody may train on them."""
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
    """Raise HplError that names the first of some bad pictures, if there are any."""
    hint = "preprocess.on_bad_image: skip leaves such pictures out and lists them in the audit"
    if len(faults) == 1:
        raise HplError(f"{faults[0]} ({hint})")
    if faults:
        more = [f"and {len(faults) - _NUM_NAMED:,} more"] if len(faults) > _NUM_NAMED else []
        raise HplError("\n  ".join([f"{len(faults):,} bad pictures ({hint})", *faults[:_NUM_NAMED], *more]))


def _pack(pictures: pd.DataFrame, store: Store, folder: Path) -> None:
    packed = pictures.loc[pictures["pack_row"] >= 0, ["part", "copy_row"]].to_numpy()
    with ShardWriter(folder, "pictures", _SHARD_ROWS) as writer:
        for start in range(0, len(packed), _SHARD_ROWS):
            writer.append(take(store.packed, *packed[start : start + _SHARD_ROWS].T))


def _write_tables(
    pictures: pd.DataFrame, captions: pd.DataFrame, links: pd.DataFrame, accounts: dict[str, dict], folder: Path
) -> None:
    columns = "image_id dataset path split role pid source_pid person camid width height file_sha256 sha256 pack_row".split()
    pictures[columns].to_parquet(folder / "images.parquet", index=False)
    captions[["caption_id", "image_id", "caption"]].to_parquet(folder / "captions.parquet", index=False)
    links.to_parquet(folder / "links.parquet", index=False)
    described = ("folder", "format", "version", "use", "tasks", "scored")
    datasets = [{"name": name, **{key: account[key] for key in described}} for name, account in accounts.items()]
    write_json(folder / "datasets.json", datasets)
