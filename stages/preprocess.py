"""Native layouts -> Parquet manifests and packed training pictures, with one label a person and no test person in training."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import kept_folder, run_stage
from hpl.readers.build import build_manifests


def main() -> None:
    raw, manifests, packed = map(Path, sys.argv[1:])
    params = load_params()
    store = kept_folder("preprocess")
    active, workers = params.active, params.worker_processes
    build_manifests(raw, active.data, active.input, params.preprocess, workers, manifests, packed, store)


if __name__ == "__main__":
    run_stage(main)
