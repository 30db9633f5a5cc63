"""Say what was read: counts, links, drops, and what looks odd in each data set."""

import sys
from pathlib import Path

from hpl.backbones.tokenizer import token_lengths
from hpl.config import load_params
from hpl.files import run_stage
from hpl.manifests.tables import Manifests
from hpl.reports.data_audit import write_data_audit


def main() -> None:
    manifests, page, content, figures = map(Path, sys.argv[1:])
    params = load_params()
    lengths = token_lengths(Manifests(manifests).captions["caption"])
    write_data_audit(manifests, lengths, params.active.input.context_length, page, content, figures)


if __name__ == "__main__":
    run_stage(main)
