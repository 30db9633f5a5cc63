"""The preprocess stage: data sets of any format -> a table of pictures, one of captions, packed pictures, and an account of all.

The schema of the tables stands in hpl/manifests/tables.py; audit.json and links.parquet tell what was read, linked and dropped.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from hpl.config import Data, DataSet, Params, Preprocess
from hpl.evaluation.matches import unmatched, why_unscored
from hpl.files import HplError, output_folder, readable, write_json, write_sums
from hpl.manifests.shards import ShardWriter
from hpl.manifests.tables import MADE_WITH, choose_queries, made_with, own_test_split, queries_and_gallery
from hpl.readers.audit import audit
from hpl.readers.caption_sets import read_cuhk_pedes, read_icfg_pedes, read_rstpreid
from hpl.readers.copies import tell_query_copies
from hpl.readers.decoding import Store, fill_store, recipe, take
from hpl.readers.links import Fingerprints, find_links
from hpl.readers.official import count_mismatches, count_records
from hpl.readers.own_data import read_folders, read_table
from hpl.readers.picture_sets import read_dukemtmc_reid, read_market1501, read_msmt17
from hpl.readers.records import PictureRecord, Reading
from hpl.readers.spelling import Spelling, respelled, what_is_there
from hpl.readers.splits import check_cameras, complete_splits, hold_out_validation
from hpl.readers.unify import unify_identities
from hpl.tasks import I2I, T2I, TASKS

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
_NUM_NAMED = 10  # bad pictures that a message names
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
    _compare_counts(accounts, skipped, options.strict)
    pictures = _add_facts(pictures, store.rows(digests))
    pictures = pd.concat([choose_queries(rows, options.split_seed) for _, rows in pictures.groupby("dataset", sort=True)])
    pictures, links = _link_people(pictures, accounts, store, data, options)
    if any("train" in source.use for source in data.datasets) and not (pictures["role"] == "train").any():
        raise HplError(f"{raw}: no picture is left to train on, for every person of the training splits is in a test split too")
    captions = captions.merge(pictures[["dataset", "path", "image_id"]], on=["dataset", "path"])
    captions = captions.sort_values("image_id", kind="stable", ignore_index=True)
    captions.insert(0, "caption_id", np.arange(len(captions)))
    _choose_tasks(pictures, captions, accounts)
    tell_query_copies(pictures, accounts, _fingerprints(pictures, store), options)
    with output_folder(packed) as packed_partial, output_folder(manifests) as partial:
        _pack(pictures, store, packed_partial)
        _write_tables(pictures, captions, links, accounts, partial)
        write_json(partial / MADE_WITH, made_with(params))
        write_json(partial / "audit.json", audit(pictures, captions, links, skipped, accounts))
        write_sums(partial)
    for name, account in accounts.items():
        for text in [*account["mismatches"], *account["notes"]]:
            print(readable(f"{name}: {text}"), file=sys.stderr)
    for text in _shortened(skipped.loc[skipped["folder"] == "", "fault"].tolist()):
        print(readable(f"skipped: {text}"), file=sys.stderr)


def _read_datasets(raw: Path, data: Data, options: Preprocess) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, dict]]:
    """Read all data sets: pictures, sorted by dataset and path; captions; and the account of each set by its name."""
    tables, sentences, accounts = [], [], {}
    for source in data.datasets:
        root = raw / source.folder
        root = root if root.exists() else raw / (Spelling(raw).find(source.folder) or source.folder)
        pictures, captions, accounts[source.label] = read_dataset(root, source, options)
        tables.append(pictures.assign(dataset=source.label))
        sentences.append(captions.assign(dataset=source.label))
    _compare_counts(accounts, pd.DataFrame(columns=["dataset", "path"]), options.strict)
    pictures = pd.concat(tables, ignore_index=True).sort_values(["dataset", "path"], kind="stable", ignore_index=True)
    return pictures, pd.concat(sentences, ignore_index=True), accounts


def _compare_counts(accounts: dict[str, dict], skipped: pd.DataFrame, strict: bool) -> None:
    """Compare what is left of the public sets without the skipped pictures with their official counts; HplError if `strict`."""
    for name, account in accounts.items():
        if (listed := account["listed"]) is not None:
            read = listed[~listed["path"].isin(skipped.loc[skipped["dataset"] == name, "path"])]
            account["mismatches"] = count_mismatches(account["format"], count_records(read), count_records(listed))
    mismatches = [f"{name}: {text}" for name, account in accounts.items() for text in account["mismatches"]]
    if strict and mismatches:
        raise HplError("\n  ".join([f"{len(mismatches)} mismatches (preprocess.strict is true)", *mismatches]))


def _decode(
    pictures: pd.DataFrame, accounts: dict[str, dict], store: Store, params: Params
) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame]:
    """Have all pictures in the store. Returns the good ones, with what to `pack`; their digests; the skipped ones."""
    folder = pictures["dataset"].map({name: account["folder"] for name, account in accounts.items()})
    files = folder.astype("str") + "/" + pictures["path"]
    pictures = pictures.assign(pack=(pictures["split"] != "test").to_numpy() & params.preprocess.pack_pictures)
    all_good = params.preprocess.on_bad_image == "error"
    if all_good:
        missing = [row for row, file in files.items() if not os.path.isfile(file)]
        hints = [what_is_there(files[row]) for row in missing[:_NUM_NAMED]]
        told = zip_longest(missing, hints, fillvalue="")
        _refuse(pd.Series({row: f"{files[row]}: picture not found{hint}" for row, hint in told}, dtype=object), files)
    size = (params.active.input.height, params.active.input.width)
    digests, faults = fill_store(files, pictures["pack"].to_numpy(), size, params.worker_processes, store)
    if all_good:
        _refuse(faults, files)
    skipped = pictures.loc[faults.index, ["dataset", "path", "split", "role"]].assign(fault=faults)
    skipped["role"] = skipped["role"].replace("", "query or gallery")
    skipped["folder"] = _absent_folders(files[faults.index])
    for (name, folder), count in skipped[skipped["folder"] != ""].groupby(["dataset", "folder"]).size().items():
        accounts[name]["notes"].append(_absent(folder, count))
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
    _note_dropped(unified, accounts)
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
    pictures, captions, spelled = _respell(pictures, captions, root) if reading.listed else (pictures, captions, [])
    pictures, captions, joined = _join_duplicates(pictures, captions, reading.place or f"{root}: row")
    listed = None
    if reading.own_data:
        pictures = _complete_own(pictures, root, source.use, options)
    elif source.official:
        per_picture = captions.groupby("path").size()
        listed = pictures.assign(num_captions=pictures["path"].map(per_picture).fillna(0).astype(np.int64))
    pictures, left_out = _used(pictures, source.use)
    if pictures["role"].isin(["unused"]).all():
        raise HplError(f"{root}: no picture of the splits that `use: {source.use}` asks for")
    captions = captions[captions["path"].isin(pictures["path"])]
    account = {
        "folder": root.as_posix(),
        "format": source.format,
        "own_data": reading.own_data,
        "use": source.use,
        "tasks": list(reading.tasks),
        "version": reading.version,
        "mismatches": [],
        "listed": listed,  # all pictures, of splits that are not used too, for the official counts
        "notes": [_printable(text) for text in reading.notes + _unseen_by_dvc(root) + spelled + joined + left_out],
    }
    return pictures.drop(columns="number").astype({"source_pid": np.int64}), captions, account


def _complete_own(pictures: pd.DataFrame, root: Path, use: Sequence[str], options: Preprocess) -> pd.DataFrame:
    """Fill in what a user's own set may leave open: splits, and the numbers of people."""
    if not (pictures["split"] != "").any() and use in (["test"], ["pretrain"]):
        pictures["split"] = use[0]
    elif "pretrain" not in use:
        pictures = complete_splits(pictures, options.test_share if "test" in use else 0.0, options.split_seed)
    try:
        check_cameras(pictures)
    except HplError as error:
        raise HplError(f"{root}: {error}") from None
    numbers = pd.Series(pd.factorize(pictures["person"], sort=True)[0] + 1, pictures.index)
    pictures["source_pid"] = pictures["source_pid"].where(pictures["anonymous"], numbers)
    return pictures


def _unseen_by_dvc(root: Path) -> list[str]:
    note = f"{root} is a link, and DVC does not look behind it: after a change there, `dvc repro -f -s preprocess` reads it again"
    return [note] if root.is_symlink() else []


def _printable(text: str) -> str:
    """Escape bytes that are no text, which file names may hold."""
    return text.encode(errors="backslashreplace").decode()


def _note_dropped(pictures: pd.DataFrame, accounts: dict[str, dict]) -> None:
    """Note for each split that is learnt from who left it, by number and name, and why."""
    named = pictures[~pictures["anonymous"]]
    for (name, split), rows in named.groupby(["dataset", "split"], sort=True):
        dropped, total = rows.loc[rows["role"] == "dropped", "person"], rows["person"].nunique()
        if dropped.empty:
            continue
        reason = "training or in a test split too" if split == "val" else "a test split too"
        left = f"{dropped.nunique():,} of {total:,} people of {split}, such as {_printable(dropped.min())}, leave it"
        accounts[name]["notes"].append(
            f"{left}: they are in {reason}"
            + (
                "; no validation people are left: put other people there, or leave the split out and set data.val_share"
                if split == "val" and dropped.nunique() == total
                else ""
            )
        )


def _choose_tasks(pictures: pd.DataFrame, captions: pd.DataFrame, accounts: dict[str, dict]) -> None:
    """Find for each set the tasks it serves, those that its test split can be scored for, and why not for the others.

    Raises:
        HplError: there are test splits, and none of them can be scored for any task.
    """
    for name, account in accounts.items():
        own = pictures[pictures["dataset"] == name]
        if account["own_data"]:
            account["tasks"] = [T2I.name, I2I.name] if (captions["dataset"] == name).any() else [I2I.name]
        account["scored"], account["not_scored"] = [], {}
        for task in account["tasks"] if "test" in account["use"] else ():
            queries, gallery = queries_and_gallery(TASKS[task], *own_test_split(own, captions))
            if reason := why_unscored(TASKS[task], queries, gallery):
                account["not_scored"][task] = reason
                account["notes"].append(f"the test split cannot be scored for {task}: {reason}")
                continue
            account["scored"].append(task)
            if missing := int(unmatched(TASKS[task], queries, gallery).sum()):
                account["notes"].append(
                    f"{task}: {missing:,} of {len(queries):,} queries have no match in the gallery and are skipped"
                )
    tested = {name: account for name, account in accounts.items() if "test" in account["use"]}
    if tested and not any(account["scored"] for account in tested.values()):
        reasons = [
            f"{name}, {task}: {reason}" for name, account in tested.items() for task, reason in account["not_scored"].items()
        ]
        raise HplError("\n  ".join(["no test split can be scored; expected one that can, or `use` without test", *reasons]))


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


def _respell(pictures: pd.DataFrame, captions: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Call pictures as their files are called, where a list spells a name otherwise than the disk."""
    files = respelled(root, pictures["path"])
    if not files:
        return pictures, captions, []
    pictures, captions = (
        table.assign(path=table["path"].map(lambda path: files.get(path, path)).astype("str")) for table in (pictures, captions)
    )
    listed, file = next(iter(files.items()))
    note = f"{len(files):,} pictures are spelled otherwise on disk than in the list, such as {listed!a}: read from {file!a}"
    return pictures, captions, [note]


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


def _refuse(faults: pd.Series, files: pd.Series) -> None:
    """Raise HplError that names the first of some bad pictures, if there are any, and every folder that is not there.

    Args:
        faults: by the place in `files`.
    """
    folders = _absent_folders(files[faults.index])
    texts = [_absent(folder, count) for folder, count in folders[folders != ""].value_counts(sort=False).items()]
    texts += _shortened(faults[(folders == "").to_numpy()].tolist())
    hint = "preprocess.on_bad_image: skip leaves such pictures out and lists them in the audit"
    if len(texts) == 1:
        raise HplError(f"{texts[0]} ({hint})")
    if texts:
        raise HplError("\n  ".join([f"{len(faults):,} bad pictures ({hint})", *texts]))


def _absent(folder: str, count: int) -> str:
    return f"{folder}: folder not found; expected {count:,} of the listed pictures in it"


def _absent_folders(files: pd.Series) -> pd.Series:
    """Name for each file the uppermost folder on the way to it that does not exist; "" if all do."""
    folders = files.map(os.path.dirname).astype("str")
    return folders.map({folder: _absent_above(folder) for folder in folders.unique()}).astype("str")


def _absent_above(folder: str) -> str:
    return "" if os.path.isdir(folder) else _absent_above(os.path.dirname(folder)) or folder


def _shortened(texts: list[str]) -> list[str]:
    """Keep the first of many lines, and say how many more there are."""
    return texts[:_NUM_NAMED] + ([f"and {len(texts) - _NUM_NAMED:,} more"] if len(texts) > _NUM_NAMED else [])


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
    described = ("folder", "format", "version", "use", "tasks", "scored", "not_scored")
    datasets = [{"name": name, **{key: account[key] for key in described}} for name, account in accounts.items()]
    write_json(folder / "datasets.json", datasets)
