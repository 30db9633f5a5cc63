"""The floor of image-to-image retrieval: colour histograms, no learning. The best of eight counts, so that the floor is not too low."""

from itertools import product

import numpy as np
from PIL import Image

NUM_BINS = 8  # a channel
NUM_STRIPES = 6  # horizontal, as a person is dressed
MARGIN = 0.2  # of the width, left out on each side where the middle alone is counted
VARIANTS = {
    f"{space}, {'stripes' if stripes > 1 else 'whole'}{', grey-world' if grey else ''}": (space, stripes, grey)
    for space, stripes, grey in product(("RGB", "HSV"), (1, NUM_STRIPES), (False, True))
}


def colour_histograms(images_N3HW: np.ndarray, space: str, num_stripes: int, grey_world: bool, middle: bool) -> np.ndarray:
    """Joint 8 x 8 x 8 histograms of each stripe, square-rooted, so that a dot product is the Bhattacharyya coefficient.

    Args:
        images_N3HW: uint8 RGB.
        space: RGB or HSV.
        num_stripes: horizontal stripes, of equal height.
        grey_world: scale each picture's channels to the same mean first, which undoes a camera's cast.
        middle: leave out the columns at both sides, which show background.

    Returns:
        float32, N x (num_stripes * 512), unit length.
    """
    return np.stack(
        [_histogram(image_3HW.transpose(1, 2, 0), space, num_stripes, grey_world, middle) for image_3HW in images_N3HW]
    )


def _histogram(image_HW3: np.ndarray, space: str, num_stripes: int, grey_world: bool, middle: bool) -> np.ndarray:
    if grey_world:
        image_HW3 = (image_HW3 / np.maximum(image_HW3.mean(axis=(0, 1)), 1.0) * 128).clip(0, 255).astype(np.uint8)
    if space == "HSV":
        image_HW3 = np.asarray(Image.fromarray(np.ascontiguousarray(image_HW3)).convert("HSV"))
    margin = int(MARGIN * image_HW3.shape[1]) if middle else 0
    bins_HW3 = image_HW3[:, margin : image_HW3.shape[1] - margin].astype(np.int64) * NUM_BINS // 256
    codes_HW = (bins_HW3[..., 0] * NUM_BINS + bins_HW3[..., 1]) * NUM_BINS + bins_HW3[..., 2]
    stripes = [np.bincount(stripe.ravel(), minlength=NUM_BINS**3) for stripe in np.array_split(codes_HW, num_stripes)]
    histogram = np.sqrt(np.concatenate(stripes), dtype=np.float32)
    return histogram / np.linalg.norm(histogram)
