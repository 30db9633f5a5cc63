"""What does not depend on the trained model: the backbone before stage II on both tasks, and the histogram floors."""

import sys
from pathlib import Path

from hpl.analysis.floors import evaluate_histograms
from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.weights import load_backbone
from hpl.config import load_params
from hpl.files import kept_folder, output_folder, run_stage, write_json
from hpl.manifests.tables import Manifests
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import arrange, encode_sets, score_sets, scores_tables
from hpl.retrieval.sets import read_test_sets, unscored
from hpl.runtime.checkpoint import Checkpoint, work_key
from hpl.runtime.device import prepare_device
from hpl.runtime.distributed import rank, run_processes


def main() -> None:
    manifests, backbone, baselines, figures = map(Path, sys.argv[1:])
    params = load_params()
    profile, tables = params.active, Manifests(manifests)
    device = prepare_device(params.device, params.num_threads, params.seed)

    key = work_key([manifests, backbone], profile.evaluate, profile.input, str(device), params.num_threads)
    with Checkpoint(kept_folder("baselines") / key, params.checkpoint_seconds) as checkpoint:
        clip, _ = load_backbone(backbone)
        extractor = Extractor.of(ImageTower(clip, task_routing=False), TextTower(clip), profile, device, checkpoint)
        encoded = encode_sets(extractor, tables, read_test_sets(tables))
        if rank():
            return  # the first process scores and writes
        results = score_sets(encoded, profile.evaluate)
        floors = evaluate_histograms(tables, profile.input, checkpoint.folder)

        with output_folder(baselines) as folder:
            for name, table in scores_tables(results).items():
                table.to_parquet(folder / f"{name}.parquet", index=False)
            write_json(folder / "histograms.json", {floor: variant for floor, (_, variant) in floors.items()})
        histograms = {floor: histogram for floor, (histogram, _) in floors.items()}
        zero_shot = arrange(results, intervals=True) | unscored(each.dataset for each in encoded)
        write_json(figures, {"zero_shot": zero_shot, **histograms})


if __name__ == "__main__":
    run_stage(lambda: run_processes(main, load_params().num_processes))
