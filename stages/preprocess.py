"""Native layouts -> Parquet manifests and packed training pictures, with one label a person and no test person in training."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import kept_folder, run_stage
from hpl.manifests.tables import Manifests
from hpl.readers.build import build_manifests
from hpl.retrieval.checks import check_manifests


def main() -> None:
    raw, manifests, packed = map(Path, sys.argv[1:])
    params = load_params()
    build_manifests(raw, params, manifests, packed, kept_folder("preprocess"))
    for remark in check_manifests(params, Manifests(manifests)):
        print(remark, file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
