"""Tables, figures and a page from the ablation's cells, and the main table in the project's own pages."""

import sys
from pathlib import Path

from hpl.ablation.page import write_ablation
from hpl.ablation.tables import cells_of_other_parameters
from hpl.config import load_params
from hpl.files import run_stage


def main() -> None:
    cells, lock, reports, *documents = map(Path, sys.argv[1:])
    write_ablation(reports, cells, load_params(), cells_of_other_parameters(lock, Path("params.yaml")), documents)


if __name__ == "__main__":
    run_stage(main)
