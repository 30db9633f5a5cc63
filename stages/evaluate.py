"""Text-to-image and image-to-image retrieval on the test split: the trained model, the backbone before training, and the histogram floor."""

import sys
from pathlib import Path

import numpy as np

from hpl.analysis.attention import explain
from hpl.analysis.reported import choose_tokens, describe_settings, evaluate_encoded, evaluate_histograms, gains, score_encoded
from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.trained import load_trained
from hpl.backbones.weights import load_backbone
from hpl.config import load_params
from hpl.files import kept_folder, output_folder, run_stage, write_json
from hpl.manifests.tables import Manifests
from hpl.retrieval.test_sets import encode_test_sets
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.runtime.distributed import rank, run_processes


def main() -> None:
    manifests, backbone, trained, evaluation, metrics, baselines = map(Path, sys.argv[1:])
    params = load_params()
    profile, tables = params.active, Manifests(manifests)
    device = prepare_device(params.device, params.num_threads, params.seed)

    key = work_key([manifests, backbone, trained], profile.evaluate, profile.input, str(device), params.num_threads)
    with Checkpoint(kept_folder("evaluate") / key, params.checkpoint_seconds) as checkpoint:
        clip, _ = load_backbone(backbone)
        settings = tables, profile.input, profile.evaluate, device, checkpoint
        before = encode_test_sets(ImageTower(clip, task_routing=False), TextTower(clip), *settings, name="zero-shot")
        images, texts, _ = load_trained(trained)
        encoded = encode_test_sets(images, texts, *settings, name="trained")
        maps = explain(images, texts, tables, profile.input, device)
        if rank():
            return  # the first process compares and writes
        zero_shot, found_before = score_encoded(before, profile.evaluate)
        figures, found = evaluate_encoded(encoded, profile.evaluate)
        figures["gain_over_zero_shot"] = gains(found, found_before)
        floors = evaluate_histograms(tables, profile.input)

        with output_folder(evaluation) as folder:
            for name, table in found.items():
                table.to_parquet(folder / f"{name}.parquet", index=False)
            np.savez(folder / "tokens.npz", **choose_tokens(encoded))
            write_json(folder / "settings.json", describe_settings(profile.evaluate))
            write_json(folder / "histograms.json", {floor: variant for floor, (_, variant) in floors.items()})
            np.savez(folder / "attention.npz", **maps)
        write_json(baselines, {"zero_shot": zero_shot, **{floor: histogram for floor, (histogram, _) in floors.items()}})
        write_json(metrics, figures)


if __name__ == "__main__":
    run_stage(lambda: run_processes(main, load_params().num_processes))
