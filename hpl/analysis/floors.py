"""What a model must be compared with: the floors of image-to-image retrieval, colour histograms that learn nothing."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from tqdm import tqdm

from hpl.config import Input
from hpl.files import room
from hpl.manifests.tables import Manifests
from hpl.pictures import read_pictures
from hpl.retrieval.figures import Encoded, Result, arrange, score_sets
from hpl.retrieval.sets import RetrievalSet, read_test_sets
from hpl.tasks import I2I

FLOORS = {"colour_histogram": False, "colour_histogram_middle": True}  # the second without the background at both sides
_PICTURES_AT_A_TIME = 512
_BINS = 8  # a channel
_STRIPES = 6  # horizontal, as a person is dressed
_MARGIN = 0.2  # of the width, left out on each side where the middle alone is counted
VARIANTS = {
    f"{space}, {'stripes' if stripes > 1 else 'whole'}{', grey-world' if grey else ''}": (space, stripes, grey)
    for space, stripes, grey in product(("RGB", "HSV"), (1, _STRIPES), (False, True))
}


def evaluate_histograms(tables: Manifests, size: Input, below: Path | None = None) -> dict[str, tuple[dict, str]]:
    """Compute the image-to-image figures of the best colour histogram of each floor, and which one it is for the first data set.

    Two floors, which say how hard the pictures are: `colour_histogram` counts the whole picture, `colour_histogram_middle` leaves
    out the background at both sides. Each is the best of VARIANTS by its own mAP on the test split, in its favour. One pass reads
    the pictures, a block at a time, and keeps the counts on disk `below` a folder; they are scored one variant at a time.
    """
    best: dict[str, list[Result]] = {floor: [] for floor in FLOORS}
    chosen: dict[str, str] = {}
    for dataset in read_test_sets(tables):
        if I2I not in dataset.tasks:
            continue
        with TemporaryDirectory(dir=below) as folder:
            kept = _keep_histograms(tables, dataset, size, Path(folder))
            for floor in FLOORS:
                results = {name: _score(dataset, kept[floor, name]) for name in VARIANTS}
                name = max(results, key=lambda name: results[name].scores.figures()["mAP"])
                best[floor].append(results[name])
                chosen.setdefault(floor, name)
    return {floor: (arrange(best[floor]), name) for floor, name in chosen.items()}


def _score(dataset: RetrievalSet, histograms: np.ndarray) -> Result:
    (result,) = score_sets([Encoded(replace(dataset, tasks=[I2I]), histograms, histograms, histograms[:0])])
    return result


def _keep_histograms(tables: Manifests, dataset: RetrievalSet, size: Input, folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """Count every variant of both floors for the pictures of a set, float16, in files of the folder, memory-mapped."""
    files = tables.files(dataset.images)
    places = {variant: folder / str(number) for number, variant in enumerate(product(FLOORS, VARIANTS))}
    for start in tqdm(range(0, len(files), _PICTURES_AT_A_TIME), desc="histograms", unit="blocks"):
        block = read_pictures(files[start : start + _PICTURES_AT_A_TIME], size.height, size.width)
        for (floor, name), place in places.items():
            rows = colour_histograms(block, *VARIANTS[name], FLOORS[floor]).astype(np.float16)
            with room(place), open(place, "ab") as stream:  # written, not mapped: a full disk would end the process by SIGBUS
                stream.write(rows.tobytes())
    return {variant: np.memmap(place, np.float16, "r+").reshape(len(files), -1) for variant, place in places.items()}


def colour_histograms(images_N3HW: np.ndarray, space: str, num_stripes: int, grey_world: bool, middle: bool) -> np.ndarray:
    """Count joint 8 x 8 x 8 histograms of each stripe, square-rooted, so that a dot product is the Bhattacharyya coefficient.

    Args:
        images_N3HW: uint8 RGB.
        space: RGB or HSV.
        num_stripes: horizontal stripes, of equal height.
        grey_world: scale each picture's channels to the same mean first, which undoes a camera's cast.
        middle: leave out the columns at both sides, which show background.

    Returns:
        float32, N x (num_stripes * 512), unit length.
    """
    return np.stack([_histogram(one_3HW.transpose(1, 2, 0), space, num_stripes, grey_world, middle) for one_3HW in images_N3HW])


def _histogram(image_HW3: np.ndarray, space: str, num_stripes: int, grey_world: bool, middle: bool) -> np.ndarray:
    if grey_world:
        image_HW3 = (image_HW3 / np.maximum(image_HW3.mean(axis=(0, 1)), 1.0) * 128).clip(0, 255).astype(np.uint8)
    if space == "HSV":
        image_HW3 = np.asarray(Image.fromarray(np.ascontiguousarray(image_HW3)).convert("HSV"))
    margin = int(_MARGIN * image_HW3.shape[1]) if middle else 0
    bins_HW3 = image_HW3[:, margin : image_HW3.shape[1] - margin].astype(np.int64) * _BINS // 256
    codes_HW = (bins_HW3[..., 0] * _BINS + bins_HW3[..., 1]) * _BINS + bins_HW3[..., 2]
    stripes = [np.bincount(stripe.ravel(), minlength=_BINS**3) for stripe in np.array_split(codes_HW, num_stripes)]
    histogram = np.sqrt(np.concatenate(stripes), dtype=np.float32)
    return histogram / np.linalg.norm(histogram)
