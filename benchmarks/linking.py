"""How well the same shot is found in two data sets: recall and precision on planted copies.

    python benchmarks/linking.py                     # pictures of the bundled renderer
    python benchmarks/linking.py --folder pictures/  # one's own: any folder of distinct pictures

Set A holds three quarters of the pictures. Set B holds changed copies of a third of them, each changed in one of the ways below,
and the last quarter, which A does not have. Whoever links two different pictures is wrong, also when they show the same person.
"""

import argparse
import io
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from hpl.config import load_params
from hpl.pictures import decode_bytes
from hpl.readers.decoding import picture_facts
from hpl.readers.links import find_links
from hpl.synthetic import synthesize

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def encoded(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resized(picture: Image.Image, factor: float) -> Image.Image:
    size = (max(8, round(picture.width * factor)), max(16, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BICUBIC)


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom))))


def crop_anywhere(picture: Image.Image, rng: random.Random) -> Image.Image:
    x, y = rng.random(), rng.random()
    return cropped(picture, 0.05 * x, 0.05 * y, 0.05 * (1 - x), 0.05 * (1 - y))


def everything(picture: Image.Image, rng: random.Random) -> bytes:
    return encoded(resized(cropped(picture, *(rng.uniform(0, 0.05) for _ in range(4))), rng.choice([0.5, 1, 2])), 60)


CHANGES = {
    "JPEG at quality 60": lambda picture, rng: encoded(picture, 60),
    "twice the size": lambda picture, rng: encoded(resized(picture, 2)),
    "half the size": lambda picture, rng: encoded(resized(picture, 0.5)),
    "5 % of each dimension cropped, anywhere": lambda picture, rng: encoded(crop_anywhere(picture, rng)),
    "5 % cropped at every side": lambda picture, rng: encoded(cropped(picture, 0.05, 0.05, 0.05, 0.05)),
    "0-5 % at each side, half to twice the size, quality 60": everything,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    params = load_params()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder
        if folder is None:
            folder = Path(temporary) / "raw"
            synthesize(folder, params.synthetic, params.worker_processes)
            folder = folder / "pretrain"
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
        random.Random(options.seed).shuffle(files)
        measure(files, params.preprocess.link_candidate, params.preprocess.link_correlation, options.seed)


def measure(files: list[Path], min_candidate: float, min_correlation: float, seed: int) -> None:
    in_a, alone = files[: len(files) * 3 // 4], files[len(files) * 3 // 4 :]
    rows, fingerprints, truth = [], [], {}

    def add(dataset: str, data: bytes, place: str) -> int:
        facts = picture_facts(data, place, None)
        rows.append((dataset, facts.sha256))
        fingerprints.append(facts.fingerprint_HW3)
        return len(rows) - 1

    place_of = {file: add("A", file.read_bytes(), str(file)) for file in tqdm(in_a, desc="set A", unit="pictures")}
    names = list(CHANGES)
    for number, file in enumerate(tqdm(in_a[: len(in_a) // 3], desc="copies in set B", unit="pictures")):
        name = names[number % len(names)]
        picture = Image.fromarray(decode_bytes(file.read_bytes(), str(file)))
        copy = CHANGES[name](picture, random.Random(seed * 10**6 + number))
        truth[place_of[file], add("B", copy, str(file))] = name
    for file in tqdm(alone, desc="others in set B", unit="pictures"):
        add("B", file.read_bytes(), str(file))

    fingerprints = np.stack(fingerprints)
    pictures = pd.DataFrame(rows, columns=["dataset", "sha256"])
    start = time.perf_counter()
    links = find_links(pictures, lambda wanted: fingerprints[wanted], min_candidate, min_correlation)
    seconds = time.perf_counter() - start
    found = set(zip(links["left"], links["right"], strict=True))
    print(f"\n{len(in_a):,} pictures in A, {len(truth):,} changed copies and {len(alone):,} others in B; {seconds:.0f} s")
    for name in names:
        planted = [pair for pair, change in truth.items() if change == name]
        hits = sum(pair in found for pair in planted)
        print(f"  recall {100 * hits / len(planted):6.2f} % of {len(planted):4d}   {name}")
    wrong = len(found - set(truth))
    print(f"  recall {100 * len(found & set(truth)) / len(truth):6.2f} %   of all")
    print(f"  precision {100 * (1 - wrong / len(found)):.3f} % ({wrong} wrong of {len(found):,} links)")


if __name__ == "__main__":
    main()
