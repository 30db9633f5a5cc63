"""One cell of the ablation: train and evaluate the parameters of one row with one seed."""

import sys
from pathlib import Path

from hpl.ablation.cells import run_cell
from hpl.config import cell_params, load_params
from hpl.files import kept_folder, run_stage, write_json


def main() -> None:
    row, seed, *paths = sys.argv[1:]
    manifests, packed, backbone, cell = map(Path, paths)
    params = load_params()
    name, own = f"{row}-{seed}", cell_params(params, row, int(seed))
    found = run_cell(name, own, manifests, packed, backbone, kept_folder("ablation"))
    write_json(cell, {"row": row, "seed": int(seed), "changes": params.ablation.changes[row], **found})


if __name__ == "__main__":
    run_stage(main)
