"""The manifests as every later stage reads them.

Schema of images.parquet, sorted by (dataset, path); a row's number is its `image_id`:
    image_id int64; dataset, path (relative to the data set's folder); split (pretrain | train | val | test: the set's own); role
    (pretrain | train | val | query | gallery | dropped | unused: what the pipeline uses it for); pid int64 (one label a person across sets
    from 1; 0 distractor, -1 junk); source_pid int64 and person (the set's own number and name of the person; "" for junk and distractors);
    camid int64 (-1 unknown); width and height (pixels); file_sha256, sha256 (of the decoded RGB pixels); pack_row int64 (row in the packed
    pictures, -1 for a picture that is read from its file, as test pictures always are).
Schema of captions.parquet, sorted by (image_id, position): caption_id, image_id int64, caption.
links.parquet: left, right (image_id, left < right), kind (exact | perceptual), correlation: pictures that show the same shot.
datasets.json lists, in the order of params.yaml, each set's name, folder, format, version, what it is used for and
which tasks it serves and can be scored for. Strings stay in Arrow's memory.
"""

from pathlib import Path

import pandas as pd

from hpl.files import HplError, read_json

TABLES = ("images.parquet", "captions.parquet", "datasets.json")


class Manifests:
    """The tables that `build_manifests` wrote. `images` is indexed by image_id; `captions` has the image's columns joined."""

    def __init__(self, folder: Path) -> None:
        folder = Path(folder)
        for name in TABLES:
            if not (folder / name).is_file():
                raise HplError(f"{folder / name}: file not found; run the preprocess stage")
        self.images = pd.read_parquet(folder / "images.parquet").set_index("image_id", drop=False)
        captions = pd.read_parquet(folder / "captions.parquet")
        joined = ["dataset", "split", "role", "pid", "source_pid", "person", "pack_row"]
        self.captions = captions.join(self.images[joined], on="image_id")
        self.datasets = {account["name"]: account for account in read_json(folder / "datasets.json")}

    def files(self, images: pd.DataFrame) -> list[Path]:
        """Where the pictures of some rows of `images` lie."""
        return [Path(self.datasets[name]["folder"]) / path for name, path in zip(images["dataset"], images["path"], strict=True)]

    def serving(self, task: str, use: str) -> list[str]:
        """Names of the data sets that serve a task (t2i | i2i) and are used for something (train | test), in the order of params.yaml."""
        key = "scored" if use == "test" else "tasks"
        return [name for name, account in self.datasets.items() if task in account[key] and use in account["use"]]
