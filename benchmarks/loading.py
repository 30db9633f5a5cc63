"""Pictures a second that one core makes ready for training: by a usual pipeline, by ours from files, by ours from packed arrays.

    python benchmarks/loading.py
    python benchmarks/loading.py --folder data/raw/Market-1501/bounding_box_train

Each makes the same batches of 128 float32 pictures of 384 x 128: decode, resize, flip, pad by 10 and crop, normalise, erase half
of them. The usual pipeline is Pillow and torchvision's v1 transforms, picture by picture, then stacked: with bilinear resize
(their default; IRRA) and with bicubic resize (CLIP's own; CLIP-ReID, and this project). Stacking, DataLoader's collation, is
about a fifth of its time. Packed pictures were decoded and resized before. Rounds alternate, and the fastest of each counts.
Without --folder it makes 1,024 JPEG files of 64 x 128 pixels, quality 90. The page cache is warm.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from hpl.backbones.encoding import normalise
from hpl.batches.loading import TrainingPictures
from hpl.batches.transforms import augment
from hpl.config import Input
from hpl.manifests.shards import ShardWriter
from hpl.pictures import read_pictures

SIZE = Input(height=384, width=128, context_length=77)
BATCH, PAD, ERASE = 128, 10, 0.5


class Files:
    """Stands in for hpl.manifests.tables.Manifests."""

    def files(self, images: pd.DataFrame) -> list[Path]:
        return [Path(path) for path in images["path"]]


def make_pictures(folder: Path, count: int) -> None:
    """Smooth shapes with a little texture: JPEG files of 64 x 128 pixels of about the size of a data set's (3 to 4 KB)."""
    for number in range(count):
        generator = np.random.default_rng(number)
        smooth = Image.fromarray(generator.integers(0, 256, (16, 8, 3), dtype=np.uint8)).resize(
            (64, 128), Image.Resampling.BICUBIC
        )
        texture = generator.normal(0, 4, (128, 64, 1))
        pixels = np.clip(np.asarray(smooth) + texture, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=90)


def usual(paths: list[str], interpolation: InterpolationMode) -> Callable[[np.ndarray], torch.Tensor]:
    size = SIZE.height, SIZE.width
    transform = transforms.Compose(
        [
            transforms.Resize(size, interpolation),
            transforms.RandomHorizontalFlip(0.5),
            transforms.Pad(PAD),
            transforms.RandomCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
            transforms.RandomErasing(ERASE, scale=(0.02, 0.4)),
        ]
    )
    return lambda rows: torch.stack([transform(Image.open(paths[row]).convert("RGB")) for row in rows])


def ours(pictures: TrainingPictures) -> Callable[[np.ndarray], torch.Tensor]:
    return lambda rows: normalise(augment(pictures.read(rows), PAD, ERASE, seed=int(rows[0])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="pictures to read instead of made ones: the first 1,024 found in it")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "made"
        if not args.folder:
            folder.mkdir()
            make_pictures(folder, 1024)
        paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp"))[:1024]
        if len(paths) < BATCH:
            parser.error(f"{folder}: {len(paths)} pictures; expected at least {BATCH}")
        with ShardWriter(Path(temporary), "pictures", 4096) as writer:
            for first in range(0, len(paths), BATCH):
                writer.append(read_pictures(paths[first : first + BATCH], SIZE.height, SIZE.width))
        images = pd.DataFrame({"image_id": range(len(paths)), "path": paths, "pack_row": range(len(paths))})
        ways = {
            "Pillow + torchvision v1, bilinear": usual(paths, InterpolationMode.BILINEAR),
            "Pillow + torchvision v1, bicubic": usual(paths, InterpolationMode.BICUBIC),
            "ours, from the files": ours(TrainingPictures(Files(), Path(temporary), images.assign(pack_row=-1), SIZE)),
            "ours, from packed arrays": ours(TrainingPictures(Files(), Path(temporary), images, SIZE)),
        }
        batches = np.random.default_rng(0).permutation(len(paths) // BATCH * BATCH).reshape(-1, BATCH)
        seconds = {name: [] for name in ways}
        for number in range(args.rounds + 1):  # the first does not count
            for name, way in ways.items():
                start = time.perf_counter()
                for rows in batches[np.arange(4) % len(batches)] if number else batches[:1]:
                    way(rows)
                if number:
                    seconds[name].append((time.perf_counter() - start) / 4 / BATCH)
    rates = {name: 1 / min(times) for name, times in seconds.items()}
    bilinear, bicubic, *_ = rates.values()
    stored = np.mean([Path(path).stat().st_size for path in paths]) / 1024 if args.folder else None
    print(f"{len(paths)} pictures" + (f" of {folder}, {stored:.1f} KiB each" if stored else " of 64 x 128 pixels, JPEG"))
    print(f"{'one core':36s}{'pictures/s':>11s}{'to bilinear':>13s}{'to bicubic':>12s}")
    for name, rate in rates.items():
        print(f"{name:36s}{rate:11.0f}{rate / bilinear:12.2f}x{rate / bicubic:11.2f}x")
    print(f"packed: {3 * SIZE.height * SIZE.width / 1024:.0f} KiB a picture on disk")


if __name__ == "__main__":
    main()
