"""Text-to-image and image-to-image retrieval of the trained model on the test split, and what it gained over zero-shot."""

import sys
from pathlib import Path

import numpy as np

from hpl.analysis.attention import explain
from hpl.analysis.evaluate import choose_tokens, describe_settings, evaluate_model, gains, read_scores_tables
from hpl.analysis.reliability import evaluate_calibration
from hpl.backbones.trained import load_neck, load_trained
from hpl.config import load_params
from hpl.evaluation.calibration import load_calibration
from hpl.files import kept_folder, output_folder, run_stage, write_json
from hpl.manifests.tables import Manifests
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import encode_sets
from hpl.retrieval.sets import read_test_sets
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.runtime.distributed import rank, run_processes


def main() -> None:
    manifests, baselines, trained, evaluation, metrics = map(Path, sys.argv[1:])
    params = load_params()
    profile, tables = params.active, Manifests(manifests)
    device = prepare_device(params.device, params.num_threads, params.seed)

    key = work_key([manifests, trained], profile.evaluate, profile.input, str(device), params.num_threads)
    with Checkpoint(kept_folder("evaluate") / key, params.checkpoint_seconds) as checkpoint:
        images, texts, _ = load_trained(trained)
        extractor = Extractor.of(images, texts, profile, device, checkpoint)
        encoded = plain = encode_sets(extractor, tables, read_test_sets(tables))
        if profile.evaluate.neck == "after":
            neck = load_neck(trained)
            encoded = [each.behind(neck) for each in encoded]
        maps = explain(extractor, tables)
        if rank():
            return  # the first process scores and writes
        figures, found = evaluate_model(encoded, profile.evaluate)
        figures["gain_over_zero_shot"] = gains(found, read_scores_tables(baselines))
        held, found["reliability"] = evaluate_calibration(plain, load_calibration(trained))  # of v_i2i as search compares it
        figures |= held

        with output_folder(evaluation) as folder:
            for name, table in found.items():
                table.to_parquet(folder / f"{name}.parquet", index=False)
            np.savez(folder / "tokens.npz", **choose_tokens(encoded))  # type: ignore[arg-type]  # no name is `allow_pickle`
            write_json(folder / "settings.json", describe_settings(profile.evaluate))
            np.savez(folder / "attention.npz", **maps)  # type: ignore[arg-type]  # likewise
        write_json(metrics, figures)


if __name__ == "__main__":
    run_stage(lambda: run_processes(main, load_params().num_processes))
