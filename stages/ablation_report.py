"""Tables, figures and a page from the ablation's cells."""

import sys
from pathlib import Path

from hpl.ablation.page import write_ablation
from hpl.ablation.tables import cells_of_other_parameters
from hpl.config import load_params
from hpl.files import run_stage


def main() -> None:
    cells, lock, reports = map(Path, sys.argv[1:])
    write_ablation(reports, cells, load_params(), cells_of_other_parameters(lock, Path("params.yaml")))


if __name__ == "__main__":
    run_stage(main)
