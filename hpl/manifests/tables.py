"""The tables as preprocess fills them and every later stage reads them.

Schema of images.parquet, sorted by (dataset, path); a row's number is its `image_id`:
    image_id int64; dataset, path (relative to the data set's folder); split (pretrain | train | val | test: the set's own); role
    (pretrain | train | val | query | gallery | dropped | unused: what the pipeline uses it for); pid int64 (one label a person,
    across sets, from 1; 0 distractor, -1 junk); source_pid int64 and person (the set's own number and name of the person; "" for
    junk and distractors); camid int64 (-1 unknown); width and height (pixels); file_sha256, sha256 (of the decoded RGB pixels);
    pack_row int64 (row in the packed pictures, -1 for a picture that is read from its file, as test pictures always are).
Schema of captions.parquet, sorted by (image_id, position): caption_id, image_id int64, caption.
links.parquet: left, right (image_id, left < right), kind (exact | perceptual), correlation: pictures that show the same shot.
datasets.json lists, in the order of params.yaml, each set's name, folder, format, version, what it is used for and
which tasks it serves, those that its test split can be scored for, and of each other one why not. SHA256SUMS has the hash of
each file, compared before any is read. Strings stay in Arrow's memory.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.config import Params
from hpl.files import HplError, check_sums, read_json
from hpl.tasks import JUNK_PID, Task

_FILES = ("images.parquet", "captions.parquet", "datasets.json")
MADE_WITH = "made_with.json"  # the parameters that the tables were made with
_QUERY_STREAM = 2  # of random numbers; 0 and 1 are those of hpl/readers/splits.py


def made_with(params: Params) -> dict:
    """Select the parameters that the tables depend on."""
    return {"profile": params.profile, "data": params.active.data.model_dump(), "preprocess": params.preprocess.model_dump()}


class Manifests:
    """The tables that `build_manifests` wrote. `images` is indexed by image_id; `captions` has the image's columns joined."""

    def __init__(self, folder: Path) -> None:
        folder = Path(folder)
        for name in _FILES:
            if not (folder / name).is_file():
                raise HplError(f"{folder / name}: file not found; run the preprocess stage")
        check_sums(folder, "preprocess")
        self.images = pd.read_parquet(folder / "images.parquet").set_index("image_id", drop=False)
        captions = pd.read_parquet(folder / "captions.parquet")
        joined = ["dataset", "split", "role", "pid", "source_pid", "person", "pack_row"]
        self.captions = captions.join(self.images[joined], on="image_id")
        self.datasets = {account["name"]: account for account in read_json(folder / "datasets.json")}

    def files(self, images: pd.DataFrame) -> list[Path]:
        """Locate the pictures of some rows of `images`."""
        return [Path(self.datasets[name]["folder"]) / path for name, path in zip(images["dataset"], images["path"], strict=True)]

    def serving(self, task: str, use: str) -> list[str]:
        """Name the data sets that serve a task (t2i | i2i) and are used for train or test, in the order of params.yaml."""
        key = "scored" if use == "test" else "tasks"
        return [name for name, account in self.datasets.items() if task in account[key] and use in account["use"]]


def own_test_split(images: pd.DataFrame, captions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Select the captions and the pictures of a set's test split, `pid` counting the set's own people from 1.

    Junk and distractors keep their source pid, which is below, and lose their captions, which ask for nobody.

    Args:
        images: of one set: columns image_id, split, person, source_pid; captions: column image_id, of this set or of more.
    """
    images = images[images["split"] == "test"].reset_index(drop=True)
    person, named = images["person"].astype(str), images["person"] != ""
    pids = np.searchsorted(np.unique(person[named]), person) + 1
    images = images.assign(pid=np.where(named, pids, images["source_pid"]))
    pid_of = images[named].set_index("image_id")["pid"]
    captions = captions[captions["image_id"].isin(pid_of.index)].reset_index(drop=True)
    return captions.assign(pid=pid_of[captions["image_id"]].to_numpy()), images


def queries_and_gallery(task: Task, captions: pd.DataFrame, images: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that ask in a task and the rows that are searched: of captions and pictures of one set's split."""
    if task.by_caption:
        return captions, images[images["pid"] != JUNK_PID].reset_index(drop=True)
    queries, gallery = (images[images["role"] == role].reset_index(drop=True) for role in ("query", "gallery"))
    return queries, gallery


def choose_queries(pictures: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Make each test picture without a role a query or a gallery picture.

    With cameras one picture of each person and camera is drawn, without cameras one of each person. It becomes a query if the
    gallery keeps a picture of that person, of other pixels, and from another camera if there are cameras.

    Args:
        pictures: of one set: columns path (unique), person, split, role, anonymous, sha256 (of the pixels), and camid, given for
            all pictures or for none.
    """
    camid, person, pixels = pictures["camid"].to_numpy(), *(pictures[name].to_numpy(object) for name in ("person", "sha256"))
    has_cameras = bool((camid >= 0).any())
    role = pictures["role"].to_numpy(object, copy=True)
    in_test = (pictures["split"] == "test").to_numpy(bool)
    named = ~pictures["anonymous"].to_numpy(bool)
    unknown = in_test & (role == "")
    role[unknown] = "gallery"

    candidates = np.flatnonzero(unknown & named)
    candidates = candidates[np.argsort(pictures["path"].to_numpy(object)[candidates])]
    drawn: dict[tuple, int] = {}
    for row in np.random.default_rng([seed, _QUERY_STREAM]).permutation(candidates):
        drawn.setdefault((person[row], camid[row]), row)
    role[list(drawn.values())] = "query"

    left: dict[str, set[tuple]] = {}  # camera and pixels of each person's pictures in the gallery
    for row in np.flatnonzero(in_test & named & (role == "gallery")):
        left.setdefault(person[row], set()).add((camid[row], pixels[row]))
    for (who, _), row in drawn.items():
        others = left.setdefault(who, set())
        if not any(shown != pixels[row] and (camera != camid[row] or not has_cameras) for camera, shown in others):
            others.add((camid[row], pixels[row]))  # there is nothing to find: it stays
            role[row] = "gallery"
    return pictures.assign(role=role)
