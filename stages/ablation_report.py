"""Tables, figures and a page from the ablation's cells."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import run_stage
from hpl.reports.ablation_page import write_ablation


def main() -> None:
    cells, reports = map(Path, sys.argv[1:])
    params = load_params()
    write_ablation(reports, cells, params.ablation, params.loss, params.profile)


if __name__ == "__main__":
    run_stage(main)
