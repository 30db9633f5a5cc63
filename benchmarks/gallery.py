"""What a user waits for with a gallery: opening and asking one of a million crops, and what `add` costs beside the encoder.

OMP_NUM_THREADS=1 python benchmarks/gallery.py [COUNT] [MODEL]

The million crops are random vectors of the model's width, ten cameras, written by the gallery's own store; the page is asked
through a real server. `add` reads the bundled test pictures.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np

from hpl.pictures import read_pictures
from hpl.search.gallery import Gallery
from hpl.search.store import NewPicture, Record

ROOT = Path(__file__).parent.parent
SENTENCES = [f"A woman in a {colour} coat." for colour in ("red", "blue", "green", "black", "white", "grey", "brown")]


def clocked(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def fill(gallery: Gallery, count: int) -> None:
    random, width = np.random.default_rng(0), gallery.model.features
    for start in range(0, count, 4096):
        part = random.standard_normal((min(4096, count - start), 2, width), np.float32)
        part /= np.linalg.norm(part, axis=2, keepdims=True)
        records = [Record(path=f"/crops/{start + row:08d}.jpg", camera=str(row % 10)) for row in range(len(part))]
        told = {"source": "-", "sha256": "", "size": 0, "mtime_ns": 0}
        gallery.store.append([NewPicture(record=each, vectors_2D=pair, **told) for each, pair in zip(records, part)])


def asked(address: str, sentence: str) -> float:
    def ask() -> None:
        with urlopen(f"{address}?q={quote(sentence)}", timeout=120) as answer:
            assert answer.status == 200 and b"results;" in answer.read()

    return clocked(ask)


def million(folder: Path, model: Path, count: int) -> None:
    gallery = Gallery.create(folder / "large", model)
    with gallery.store.writing():
        fill(gallery, count)
    print(f"{count:,} crops x 2 x {gallery.model.features}")
    print(f"opened in {clocked(lambda: len(Gallery.open(folder / 'large'))):.3f} s (below 0.5)")
    gallery.search(text="A person.")
    encoder = statistics.median(clocked(lambda text=text: gallery.model.encode_texts([text])) for text in SENTENCES)
    whole = statistics.median(clocked(lambda text=text: gallery.search(text=text)) for text in SENTENCES)
    print(f"a sentence encoded in {encoder:.3f} s; searched, with it, in {whole:.3f} s")
    command = [sys.executable, "-m", "hpl.cli", "serve", str(folder / "large"), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        start = time.perf_counter()
        line = process.stderr.readline()
        address = line[line.index("http") :].split()[0]
        print(f"the server is ready after {time.perf_counter() - start:.1f} s")
        page = statistics.median(asked(address, text) for text in SENTENCES)
        print(f"the page answers in {page:.3f} s, {page - encoder:.3f} beyond the encoder (at most 0.3)")
        with ThreadPoolExecutor(20) as pool:
            times = list(pool.map(lambda number: asked(address, SENTENCES[number % 7]), range(60)))
        print(f"20 clients at once, 60 questions: no error, median {statistics.median(times):.2f} s")
    finally:
        process.kill()
        process.wait()


def adding(folder: Path, model: Path) -> None:
    crops = sorted((ROOT / "data/raw/bundled/Market-1501/bounding_box_test").glob("*.jpg"))
    gallery = Gallery.create(folder / "small", model)
    size = gallery.model.input
    pixels = read_pictures(crops, size.height, size.width)
    gallery.model.encode_pictures(pixels[:64])
    encoding = statistics.median(clocked(lambda: gallery.model.encode_pictures(pixels)) for _ in range(3))
    times = []
    for number in range(3):
        fresh = Gallery.create(folder / f"small{number}", model)
        fresh.model.encode_pictures(pixels[:64])
        times.append(clocked(lambda fresh=fresh: fresh.add(str(crops[0].parent))))
    whole = statistics.median(times)
    more = whole / encoding - 1
    print(f"add: {len(crops)} pictures in {whole:.2f} s, encoding alone {encoding:.2f} s: {more:.0%} more (at most 15 %)")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        chosen = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "data/model"
        adding(Path(place), chosen)
        million(Path(place), chosen, int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
