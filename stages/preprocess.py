"""Native layouts -> Parquet manifests and packed training pictures, with one label a person and no test person in training."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import kept_folder, run_stage
from hpl.readers.build import build_manifests


def main() -> None:
    raw, manifests, packed = map(Path, sys.argv[1:])
    build_manifests(raw, load_params(), manifests, packed, kept_folder("preprocess"))


if __name__ == "__main__":
    run_stage(main)
