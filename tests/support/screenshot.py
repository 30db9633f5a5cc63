"""usage: python -m tests.support.screenshot OUT.png: `hpl serve` on the bundled test pictures, as a browser shows it."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.chromium import CHROMIUM, browser
from tests.support.imports import ROOT

SENTENCE = "A woman with long hair in a red coat and blue trousers."
HPL = [sys.executable, "-m", "hpl.cli"]


def main(out: Path) -> None:
    if CHROMIUM is None:
        sys.exit("error: no chromium; to install it: make system-packages")
    model, crops = ROOT / "data/model", [ROOT / "data/raw/bundled/Market-1501" / name for name in ("query", "bounding_box_test")]
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder) / "demo.gallery"
        add = [*HPL, "index", "add", gallery, *crops, "--model", model, "--camera-pattern", r"c(\d)s"]
        subprocess.run(add, check=True)
        process = subprocess.Popen([*HPL, "serve", gallery, "--port", "0"], stderr=subprocess.PIPE, text=True)
        try:
            address = re.search(r"http://\S+/", process.stderr.readline())[0]
            with browser() as tab:
                tab.open(f"{address}?q={SENTENCE.replace(' ', '+')}&k=7", 1180, 800)
                tab.screenshot(out)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
