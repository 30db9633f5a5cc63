"""The manifests as every later stage reads them.

Schema of images.parquet, sorted by (dataset, path); a row's number is its `image_id`:
    image_id int64; dataset, path (relative to the data set's folder), split (pretrain | train | val | test: the set's own), role
    (pretrain | train | val | query | gallery | dropped: what the pipeline uses it for); pid int64 (one label a person across sets from 1;
    0 distractor, -1 junk), source_pid int64 (the set's own), camid int64 (-1 unknown), width and height (pixels), sha256 (of the
    decoded RGB pixels), pack_row int64 (row in the packed pictures, -1 for test pictures, which are read from their files).
Schema of captions.parquet, sorted by (image_id, position): caption_id, image_id int64, caption.
datasets.json names each set's folder and format.
"""

from pathlib import Path

import pandas as pd

from hpl.files import HplError, read_json


class Manifests:
    """The tables that `build_manifests` wrote. `images` is indexed by image_id; `captions` has the image's columns joined."""

    def __init__(self, folder: Path) -> None:
        folder = Path(folder)
        for name in ("images.parquet", "captions.parquet", "datasets.json"):
            if not (folder / name).is_file():
                raise HplError(f"{folder / name}: file not found; run the preprocess stage")
        self.images = pd.read_parquet(folder / "images.parquet").set_index("image_id", drop=False)
        captions = pd.read_parquet(folder / "captions.parquet")
        self.captions = captions.join(self.images[["dataset", "split", "role", "pid", "source_pid", "pack_row"]], on="image_id")
        self.datasets = read_json(folder / "datasets.json")

    def files(self, images: pd.DataFrame) -> list[Path]:
        """Where the pictures of some rows of `images` lie."""
        return [Path(self.datasets[name]["folder"]) / path for name, path in zip(images["dataset"], images["path"], strict=True)]
