"""The query itself in its gallery: the same pixels, which scoring ignores, and what looks like them, which is only told."""

import pandas as pd

from hpl.config import Preprocess
from hpl.readers.links import Fingerprints, near_copies
from hpl.tasks import I2I, JUNK_PID

_NUM_EXAMPLES = 20  # pairs kept of each kind


def tell_query_copies(pictures: pd.DataFrame, accounts: dict[str, dict], fingerprints: Fingerprints, options: Preprocess) -> None:
    """Add to the account of each set what its gallery holds of its queries: `query_copies`, empty if nothing, and notes.

    Args:
        pictures: rows of images.parquet.
        accounts: of each set by its name, with `scored`.
    """
    for name, account in accounts.items():
        own = pictures[(pictures["dataset"] == name) & (pictures["pid"] != JUNK_PID)]
        queries, gallery = (own[own["role"] == role] for role in ("query", "gallery"))
        account["query_copies"] = {}
        if I2I.name not in account["scored"]:
            continue
        columns = ["image_id", "path", "person", "camid"]
        same = queries[[*columns, "sha256"]].merge(gallery[[*columns, "sha256"]], on="sha256", suffixes=("", "_found"))
        near = near_copies(queries, gallery, fingerprints, (options.link_candidate, options.link_correlation))
        if len(same):
            account["notes"].append(
                f"queries whose own picture stands in the gallery too, pixel for pixel: {same['image_id'].nunique():,} (such as "
                f"{same['path'][0]} and {same['path_found'][0]}); scoring ignores it for that query"
            )
        if len(near):
            account["notes"].append(
                f"queries with a near-copy in the gallery, perhaps the picture re-encoded or cropped: {len(near):,} "
                f"(such as {near['path'].iloc[0]} and {near['path_found'].iloc[0]}); scoring counts it as any other picture"
            )
        if len(same) or len(near):
            pairs = {kind: table[["path", "path_found"]].head(_NUM_EXAMPLES) for kind, table in (("exact", same), ("near", near))}
            account["query_copies"] = {
                "exact": len(same),
                "near": len(near),
                "examples": {kind: table.to_numpy().tolist() for kind, table in pairs.items()},
            }
