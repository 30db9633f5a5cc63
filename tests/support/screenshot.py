"""usage: python -m tests.support.screenshot OUT.png: `hpl serve` on the bundled test pictures, as a browser shows it."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.chromium import CHROMIUM, browser
from tests.support.imports import ROOT
from tests.support.served import HPL, served

SENTENCE = "A woman with long hair in a red coat and blue trousers."


def main(out: Path) -> None:
    if CHROMIUM is None:
        sys.exit("error: no chromium; to install it: make system-packages")
    model, crops = ROOT / "data/model", [ROOT / "data/raw/bundled/Market-1501" / name for name in ("query", "bounding_box_test")]
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder) / "demo.gallery"
        add = [*HPL, "index", "add", gallery, *crops, "--model", model, "--camera-pattern", r"c(\d)s"]
        subprocess.run(add, check=True)
        with served(gallery) as address, browser() as tab:
            tab.open(f"{address}?q={SENTENCE.replace(' ', '+')}&k=7", 1180, 800)
            tab.screenshot(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
