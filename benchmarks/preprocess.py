"""Time and memory of the preprocess stage on a tree of MSMT17's size, and of a rerun after ten pictures were added.

    python benchmarks/preprocess.py                # 126,441 pictures, about 15 GB of temporary disk
    python benchmarks/preprocess.py --scale 0.05   # a twentieth of it
    python benchmarks/preprocess.py --no-pack      # without decoded copies of the training pictures (pack_pictures: false)

The pictures are noise on smooth colour in MSMT17's layout and numbers (V1), none like another. Memory is the sum over all
processes of their proportional set size (pages that several share count once), looked at five times a second.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
LISTS = {
    "train": ("train", 30248, 1041),
    "val": ("train", 2373, 1041),
    "query": ("test", 11659, 3060),
    "gallery": ("test", 82161, 3060),
}
NUM_CAMERAS = 15


def write_block(folder: str, first: int, lines: list[str]) -> None:
    """Render the pictures of some lines of a list."""
    for number, line in enumerate(lines, first):
        rng = np.random.default_rng(number)
        width, height = int(rng.integers(60, 140)), int(rng.integers(140, 320))
        smooth = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(smooth).astype(np.int16) + rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
        path = Path(folder) / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def make_tree(root: Path, scale: float) -> int:
    """MSMT17 V1 with `scale` of its pictures and people."""
    root.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        jobs, total = [], 0
        for number, (name, (folder, pictures, people)) in enumerate(LISTS.items()):
            pictures, people = max(10, round(pictures * scale)), max(5, round(people * scale))
            lines = []
            for index in range(pictures):
                pid, camera = index % people, 1 + index // people % NUM_CAMERAS
                lines.append(f"{pid:04d}/{pid:04d}_{index // people:03d}_{camera:02d}_0303morning_{index:04d}_{number}.jpg {pid}")
            (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
            starts = range(0, pictures, 500)
            jobs += [
                pool.submit(write_block, str(root / folder), start + number * 10**6, lines[start : start + 500])
                for start in starts
            ]
            total += pictures
        for job in jobs:
            job.result()
    return total


def run(folder: Path) -> None:
    """One run of the stage, with its seconds, processor time and memory."""
    command = [sys.executable, str(ROOT / "stages" / "preprocess.py"), "data/raw", "data/manifests", "data/pictures"]
    start, used = time.perf_counter(), os.times()
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "DVC_ROOT": str(folder)})
    stage, peak = psutil.Process(process.pid), [0]

    def watch() -> None:
        while process.poll() is None:
            total = 0
            try:
                parts = [stage, *stage.children(recursive=True)]
            except psutil.NoSuchProcess:  # it ended just now
                break
            for part in parts:
                try:
                    total += part.memory_full_info().pss
                except psutil.Error:
                    pass
            peak[0] = max(peak[0], total)
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    seconds, after = time.perf_counter() - start, os.times()
    busy = after.children_user + after.children_system - used.children_user - used.children_system
    if code:
        sys.exit(f"preprocess ended with {code}")
    print(
        f"  {seconds:7.1f} s, {busy:7.1f} s of processor time ({busy / seconds:.2f} cores), peak memory {peak[0] / 2**30:.2f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--no-pack", action="store_true")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        yaml = YAML()
        params = yaml.load((ROOT / "params.yaml").read_text())
        params["profile"], params["num_workers"] = "paper-icfg-msmt", options.workers
        params["preprocess"]["pack_pictures"] = not options.no_pack
        profile = params["profiles"]["paper-icfg-msmt"]
        profile["data"]["datasets"] = [entry for entry in profile["data"]["datasets"] if entry["format"] == "msmt17"]
        profile["data"]["datasets"][0]["official"] = False
        with open(folder / "params.yaml", "w") as file:
            yaml.dump(params, file)
        start = time.perf_counter()
        root = folder / "data" / "raw" / "MSMT17"
        total = make_tree(root, options.scale)
        print(f"{total:,} pictures written in {time.perf_counter() - start:.0f} s; {options.workers} workers", flush=True)
        print("first run", flush=True)
        run(folder)
        more = [f"0000/0000_999_01_0303morning_{index:04d}_9.jpg 0" for index in range(10)]
        write_block(str(root / "train"), 9 * 10**6, more)
        with open(root / "list_train.txt", "a") as file:
            file.write("\n".join(more) + "\n")
        print("rerun after ten pictures were added", flush=True)
        run(folder)
        print("rerun with nothing changed", flush=True)
        run(folder)


if __name__ == "__main__":
    main()
