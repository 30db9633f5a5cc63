"""Render the report and its pictures, and the result tables in the project's own pages."""

import sys
from pathlib import Path

from hpl.config import load_params
from hpl.files import run_stage
from hpl.reports.page import Sources, write_report


def main() -> None:
    manifests, evaluation, histograms, curves, metrics, baselines, reports, *documents = map(Path, sys.argv[1:])
    sources = Sources(
        manifests=manifests, evaluation=evaluation, histograms=histograms, curves=curves, metrics=metrics, baselines=baselines
    )
    write_report(reports, sources, load_params(), documents)


if __name__ == "__main__":
    run_stage(main)
