"""The preprocess stage: several data sets -> one picture table, one caption table, packed pictures and an account of all of it.

The schema of the tables stands in hpl/manifests/tables.py; audit.json tells what was read, linked and dropped.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from hpl.config import Data, Input, Preprocess
from hpl.files import HplError, output_folder, write_json
from hpl.manifests.cuhk_pedes import read_cuhk_pedes
from hpl.manifests.market1501 import read_market1501
from hpl.manifests.pictures import THUMBNAIL, examine_pictures
from hpl.manifests.records import PictureRecord
from hpl.manifests.shards import ShardWriter
from hpl.manifests.unify import Link, find_links, unify_identities

READERS: dict[str, Callable[[Path], list[PictureRecord]]] = {"cuhk-pedes": read_cuhk_pedes, "market-1501": read_market1501}
PACK_ROWS = 4096  # pictures a shard of the packed array


def build_manifests(
    raw: Path, data: Data, size: Input, options: Preprocess, num_workers: int, manifests: Path, packed: Path
) -> None:
    """Read, check, link and pack the data sets of a profile.

    Args:
        raw: the folder that holds each data set's folder.
        manifests, packed: the two output folders, written whole or not at all.

    Raises:
        HplError: names the file or record that is wrong.
    """
    sets = {"caption": data.caption_set, "picture": data.picture_set, "pretrain": data.pretrain_set}
    tables, captions = [], []
    datasets = {}
    for purpose, source in sets.items():
        if source is None:
            continue
        if source.format not in READERS:
            raise HplError(f"format {source.format!r} of {source.folder}: no reader; expected one of {', '.join(READERS)}")
        name = "pretrain" if purpose == "pretrain" else source.format
        root = raw / source.folder
        datasets[name] = {"folder": root.as_posix(), "format": source.format}
        for record in READERS[source.format](root):
            if purpose == "pretrain" and record.split != "train":
                continue
            captions.append(record.captions)
            tables.append(
                {
                    "dataset": name,
                    "path": record.path,
                    "split": "pretrain" if purpose == "pretrain" else record.split,
                    "role": "pretrain" if purpose == "pretrain" else record.role,
                    "source_pid": record.source_pid,
                    "camid": record.camid,
                    "anonymous": record.anonymous,
                }
            )
    pictures = pd.DataFrame(tables)
    pictures["captions"] = captions
    pictures = pictures.sort_values(["dataset", "path"], kind="stable", ignore_index=True)
    pictures.insert(0, "image_id", np.arange(len(pictures)))
    to_pack = (pictures["split"] != "test").to_numpy()
    pictures["pack_row"] = np.where(to_pack, np.cumsum(to_pack) - 1, -1)

    with output_folder(packed) as packed_partial, output_folder(manifests) as manifests_partial:
        facts, thumbnails = _examine(pictures, datasets, size, num_workers, packed_partial)
        pictures = pd.concat([pictures, facts], axis=1)
        links = find_links(pictures, thumbnails, options.link_hash_distance, options.link_correlation)
        pictures = unify_identities(pictures, links)
        _write_tables(pictures, manifests_partial)
        write_json(manifests_partial / "datasets.json", datasets)
        write_json(manifests_partial / "audit.json", _audit(pictures, links))


def _examine(
    pictures: pd.DataFrame, datasets: dict[str, dict], size: Input, num_workers: int, packed: Path
) -> tuple[pd.DataFrame, np.ndarray]:
    """Decode every picture once: its facts as a table, its thumbnail, and the packed copy of those that are read again and again."""
    rows = pictures[["dataset", "path", "pack_row"]].itertuples(index=False)
    jobs = [(Path(datasets[name]["folder"]) / path, (size.height, size.width) if row >= 0 else None) for name, path, row in rows]
    table = {"width": [], "height": [], "sha256": [], "phash": []}
    thumbnails = np.empty((len(jobs), *THUMBNAIL, 3), np.uint8)
    with ShardWriter(packed, "pictures", PACK_ROWS) as writer:
        for row, facts in enumerate(tqdm(examine_pictures(jobs, num_workers), total=len(jobs), desc="decode", unit="pictures")):
            for column, values in table.items():
                values.append(getattr(facts, column))
            thumbnails[row] = facts.thumbnail_HW3
            if facts.packed_3HW is not None:
                writer.append(facts.packed_3HW[None])
    return pd.DataFrame(table).astype({"phash": np.uint64}), thumbnails


def _write_tables(pictures: pd.DataFrame, folder: Path) -> None:
    columns = "image_id dataset path split role pid source_pid camid width height sha256 pack_row".split()
    pictures[columns].to_parquet(folder / "images.parquet", index=False)
    captions = pictures[["image_id", "captions"]].explode("captions", ignore_index=True).dropna()
    captions = captions.rename(columns={"captions": "caption"}).reset_index(drop=True)
    captions.insert(0, "caption_id", np.arange(len(captions)))
    captions.to_parquet(folder / "captions.parquet", index=False)


def _audit(pictures: pd.DataFrame, links: list[Link]) -> dict:
    """Counts by data set and split, links by kind, people merged and dropped."""
    named = pictures[~pictures["anonymous"]]
    counts: dict = {}
    for (dataset, split, role), rows in pictures.groupby(["dataset", "split", "role"], sort=True):
        people = rows.loc[~rows["anonymous"], "source_pid"].nunique()
        entry = {"people": int(people), "pictures": len(rows), "captions": int(rows["captions"].map(len).sum())}
        counts.setdefault(dataset, {}).setdefault(split, {})[role] = entry
    sources = named.drop_duplicates(["dataset", "source_pid"])
    dropped = named[named["role"] == "dropped"]
    return {
        "counts": counts,
        "links": {kind: sum(link.kind == kind for link in links) for kind in ("exact", "perceptual")},
        "people": {
            "in_all_sets": len(sources),
            "unified": int(named["pid"].nunique()),
            "merged": int(len(sources) - named["pid"].nunique()),
            "dropped_from_training": int(dropped.loc[dropped["split"] != "val", "pid"].nunique()),
            "dropped_from_validation": int(dropped.loc[dropped["split"] == "val", "pid"].nunique()),
        },
        "linked_pairs": [
            {
                "left": f"{pictures.at[link.left, 'dataset']}/{pictures.at[link.left, 'path']}",
                "right": f"{pictures.at[link.right, 'dataset']}/{pictures.at[link.right, 'path']}",
                "kind": link.kind,
                "hash_distance": link.distance,
                "correlation": link.correlation,
            }
            for link in links
        ],
    }
