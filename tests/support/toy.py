"""Training tables small enough to follow by eye: a caption set and a picture set with one person in common, some in one set
alone."""

from pathlib import Path

import numpy as np
import pandas as pd

from hpl.manifests.shards import ShardWriter
from tests.support.tiny import SIZE

PIDS = [4, 5, 6, 7, 9]
CAPTIONED_ALONE, SHARED, PICTURED_ALONE = [4, 5], [6], [7, 9]
CAPTION_SET = [(4, 2), (5, 1), (6, 1)]  # person, pictures; two captions each
PICTURE_SET = [(6, 4), (7, 2), (9, 5)]  # person 7 has fewer than four


class Tables:
    """Stands in for hpl.manifests.tables.Manifests; its pictures are packed in `folder`."""

    def __init__(self, folder: Path) -> None:
        pids = np.repeat(*np.array(CAPTION_SET + PICTURE_SET).T)
        count = len(pids)
        dataset = np.where(np.arange(count) < sum(pictures for _, pictures in CAPTION_SET), "T", "I")
        self.images = pd.DataFrame(
            {"image_id": np.arange(count) + 20, "dataset": dataset, "role": "train", "pid": pids, "pack_row": np.arange(count)}
        )
        captioned = self.images[self.images["dataset"] == "T"].iloc[np.repeat(np.arange(4), 2)].reset_index(drop=True)
        self.captions = captioned.assign(caption=[f"A person with {n} bags." for n in range(8)])
        pixels = np.random.default_rng(0).integers(0, 256, (count, 3, SIZE.height, SIZE.width), dtype=np.uint8)
        with ShardWriter(folder, "pictures", 8) as writer:
            writer.append(pixels)

    def serving(self, task: str, use: str) -> list[str]:
        return {"t2i": ["T"], "i2i": ["I"]}[task]
