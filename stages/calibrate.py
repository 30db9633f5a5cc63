"""What a score of the trained model says, fitted on validation people: likelihood ratios, thresholds, that of clusters."""

import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from hpl.analysis.calibrate import fit_calibration
from hpl.backbones.trained import TENSORS_FILE, load_trained
from hpl.config import load_params
from hpl.evaluation.calibration import save_calibration
from hpl.files import kept_folder, output_folder, run_stage
from hpl.manifests.tables import Manifests
from hpl.retrieval.checks import why_unmeasured
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import encode_sets
from hpl.retrieval.sets import read_validation_sets
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.runtime.distributed import rank, run_processes
from hpl.tasks import TASKS


def main() -> None:
    manifests, trained, calibration = map(Path, sys.argv[1:])
    params = load_params()
    profile, tables = params.active, Manifests(manifests)
    device = prepare_device(params.device, params.num_threads, params.seed)

    tensors = trained / TENSORS_FILE
    key = work_key([manifests, tensors], profile.evaluate.batch_size, profile.input, str(device), params.num_threads)
    with Checkpoint(kept_folder("calibrate") / key, params.checkpoint_seconds) as checkpoint:
        images, texts, _ = load_trained(trained)
        extractor = replace(Extractor.of(images, texts, profile, device, checkpoint), flip=False)  # as search sees pictures
        sets = read_validation_sets(tables)
        encoded = encode_sets(extractor, tables, sets)
        if rank():
            return  # the first process fits and writes
        measured = {task.name for each in sets for task in each.tasks}
        reasons = {name: why_unmeasured(name, tables) for name in TASKS if name not in measured}
        fitted = fit_calibration(encoded, params.calibrate, sha256(tensors.read_bytes()).hexdigest(), reasons)
        with output_folder(calibration) as folder:
            save_calibration(folder, fitted)


if __name__ == "__main__":
    run_stage(lambda: run_processes(main, load_params().num_processes))
