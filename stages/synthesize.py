"""Render the bundled data set in the native formats of CUHK-PEDES and Market-1501."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import run_stage
from hpl.synthetic import synthesize


def main() -> None:
    params = load_params()
    synthesize(Path(sys.argv[1]), params.synthetic, params.worker_processes)


if __name__ == "__main__":
    run_stage(main)
