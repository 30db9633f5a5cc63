"""Which pictures and captions are scored: each data set by itself, by its own people."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip.model import CLIP

from hpl.analysis.evaluate import choose_tokens, describe_settings, evaluate_model
from hpl.analysis.floors import _keep_histograms, evaluate_histograms
from hpl.backbones.towers import ImageTower, TextTower
from hpl.config import load_params
from hpl.evaluation.scores import Scores
from hpl.files import HplError
from hpl.manifests.tables import Manifests
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import Encoded, Result, arrange, encode_sets, evaluate_towers, score_sets, scores_tables
from hpl.retrieval.sets import RetrievalSet, read_test_sets
from hpl.tasks import I2I, T2I, TASKS, Task
from tests.support.imports import ROOT
from tests.support.native_sets import CUHK, MARKET, build
from tests.support.pictures import picture, save
from tests.support.tiny import SIZE

OWN = {"format": "folders", "folder": "people", "use": ["test"]}
OPTIONS = load_params(ROOT / "params.yaml").active.evaluate.model_copy(update={"batch_size": 4, "rank_list_length": 3})


def extractor(clip: CLIP, **options: bool) -> Extractor:
    routed = {"task_routing": True, "i2i_token_noise": 0.5} if options.pop("routed", False) else {"task_routing": False}
    towers = {"images": ImageTower(clip, **routed), "texts": TextTower(clip)}
    return Extractor(**towers, size=SIZE, batch_size=4, device=torch.device("cpu"), **options)


def encoded_tests(towers: Extractor, tables: Manifests) -> list[Encoded]:
    return encode_sets(towers, tables, read_test_sets(tables))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Three people of two captioned pictures each, without cameras."""
    for person in range(3):
        for number in range(2):
            file = save(picture(600 + 10 * person + number), tmp_path / "people" / f"p{person}" / f"{number}.png")
            file.with_suffix(".txt").write_text(f"Person {person}.")
    return tmp_path / "people"


def test_each_set_is_scored_by_its_own_people(icfg: Path, market: Path, tmp_path: Path) -> None:
    source = {"format": "icfg-pedes", "folder": icfg.name, "use": ["test"], "official": False}
    caption_set, picture_set = read_test_sets(build(tmp_path, tmp_path / "out", datasets=(source, MARKET)))
    captions, gallery = caption_set.queries_and_gallery(T2I)
    assert set(captions["pid"]) <= set(gallery["pid"]) and captions["pid"].min() >= 1  # person 0 is a person, no distractor
    queries, gallery = picture_set.queries_and_gallery(I2I)
    assert queries["pid"].tolist() == [1] and sorted(gallery["pid"]) == [-1, 0, 1]


def test_one_set_may_serve_both_tasks_and_cameras_may_be_unknown(clip: CLIP, people: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(OWN,))
    (test,) = read_test_sets(tables)
    assert [len(part) for part in test.queries_and_gallery(T2I)] == [6, 6] and [
        len(part) for part in test.queries_and_gallery(I2I)
    ] == [3, 3]
    figures, found = evaluate_model(encoded_tests(extractor(clip), tables), OPTIONS)
    assert (figures["t2i"]["num_queries"], figures["i2i"]["num_queries"], figures["i2i"]["num_skipped"]) == (6, 3, 0)
    assert len(found["rank_lists_i2i"]) == 9 and found["rank_lists_i2i"].groupby("query_image_id")["match"].sum().tolist() == [
        1,
        1,
        1,
    ]


def test_several_sets_are_evaluated_in_one_run(clip: CLIP, cuhk: Path, market: Path, people: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(CUHK, MARKET, OWN))
    figures, found = evaluate_model(encoded_tests(extractor(clip), tables), OPTIONS)
    assert figures["datasets"] == {"t2i": "CUHK-PEDES", "i2i": "Market-1501"}
    assert set(figures) == {"t2i", "i2i", "datasets", "others", "not_scored"} and set(figures["others"]["people"]) == {
        "t2i",
        "i2i",
    }
    assert figures["t2i"]["num_queries"] == 1 and figures["i2i"]["num_queries"] == 1
    alone = evaluate_towers(extractor(clip), build(tmp_path, tmp_path / "alone", datasets=(OWN,)), OPTIONS)
    for task, values in alone.items():  # another set in the run changes no figure
        assert values.items() <= figures["others"]["people"][task].items()
        assert "mAP_ci_low" in figures["others"]["people"][task]
    assert set(found["rank_lists_i2i"]["dataset"]) == {"Market-1501", "people"}
    floors = evaluate_histograms(tables, SIZE)
    assert set(floors["colour_histogram"][0]) == {"i2i", "others"}


def test_histograms_on_a_full_disk_are_an_error_and_no_dead_process(market: Path, tmp_path: Path) -> None:
    """A mapped file would end it by SIGBUS."""
    tables = build(tmp_path, tmp_path / "out", datasets=(MARKET,))
    (dataset,) = read_test_sets(tables)
    (tmp_path / "0").symlink_to("/dev/full")
    with pytest.raises(HplError, match="/0: no space left on the disk; make room"):
        _keep_histograms(tables, dataset, SIZE, tmp_path)


def test_what_cannot_be_scored_is_missing_with_its_reason_and_takes_nothing_else_with_it(
    clip: CLIP, cuhk: Path, market: Path, people: Path, tmp_path: Path
) -> None:
    (market / "query" / "0001_c1s1_001051_00.jpg").rename(market / "query" / "0009_c1s1_001051_00.jpg")
    for file in people.glob("p[01]/1.png"):
        file.unlink()
        file.with_suffix(".txt").unlink()
    tables = build(tmp_path, tmp_path / "out", datasets=(CUHK, MARKET, OWN))
    encoded = encoded_tests(extractor(clip), tables)
    figures, found = evaluate_model(encoded, OPTIONS)
    assert figures["datasets"] == {"t2i": "CUHK-PEDES", "i2i": "people"}
    assert figures["i2i"]["num_queries"] == 1 and set(figures["others"]) == {"people"}
    reasons = figures["not_scored"]
    assert set(reasons) == {"CUHK-PEDES", "Market-1501", "people"} and list(reasons["Market-1501"]) == ["i2i"]
    assert reasons["Market-1501"]["i2i"].startswith("none of the 1 people of 1 queries is in the gallery")
    assert set(reasons["CUHK-PEDES"]) == {"open_set_t2i", "composed"} and list(reasons["people"]) == ["open_set_i2i"]
    assert "open_set" not in figures and "composed" not in figures
    assert set(found["scores_i2i"]["dataset"]) == {"people"}
    plain = evaluate_towers(extractor(clip), tables, OPTIONS)
    assert plain["not_scored"] == {"Market-1501": {"i2i": reasons["Market-1501"]["i2i"]}}  # the ablation's cells
    assert list(evaluate_histograms(tables, SIZE)["colour_histogram"][0]) == ["i2i"]


def test_the_first_set_of_a_task_gives_the_headline() -> None:
    def result(name: str, task: Task, first_rank: int) -> Result:
        table = pd.DataFrame({"num_matches": [1], "first_rank": [first_rank], "ap": [1.0], "inp": [1.0]})
        return Result(RetrievalSet(name, [task], table, table), task, Scores(table, np.array([1])))

    arranged = arrange([result("a", T2I, 1), result("b", T2I, 2), result("b", I2I, 1)])
    assert set(arranged) == {"t2i", "i2i", "others"} and set(arranged["others"]) == {"b"}
    assert arranged["t2i"]["rank1"] == arranged["i2i"]["rank1"] == 100 and arranged["others"]["b"]["t2i"]["rank1"] == 0


def test_nothing_to_evaluate_is_named(cuhk: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=({**CUHK, "use": ["train"]},))
    with pytest.raises(HplError, match="no data set has `use: .test.`"):
        read_test_sets(tables)


def write_people(folder: Path, num_people: int, num_pictures: int) -> dict:
    """People of captioned pictures by two cameras, to be trained on and tested on."""
    for person in range(num_people):
        for number in range(num_pictures):
            file = save(picture(900 + 10 * person + number), folder / f"p{person}" / f"{number}_c{number % 2}.png")
            file.with_suffix(".txt").write_text(f"Person {person}, picture {number}.")
    return {"format": "folders", "folder": folder.name, "use": ["train", "test"], "camera_pattern": "_c([0-9])"}


def test_figures_alone(clip: CLIP, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(write_people(tmp_path / "many", 12, 4),))
    (test,) = read_test_sets(tables)
    figures = evaluate_towers(extractor(clip), tables, OPTIONS)
    assert figures["t2i"]["num_queries"] == len(test.captions) and figures["i2i"]["num_queries"] == len(
        test.queries_and_gallery(I2I)[0]
    )
    assert set(figures["i2i"]) == {"rank1", "rank5", "rank10", "mAP", "mINP", "num_queries", "num_skipped"}
    assert figures["t2i"]["rsum"] == pytest.approx(sum(figures["t2i"][name] for name in ("rank1", "rank5", "rank10")), abs=0.02)


def test_a_caption_of_a_distractor_asks_for_nobody(tmp_path: Path) -> None:
    root = tmp_path / "people"
    rows = ["path,pid,camid,caption,split"]
    for number, (pid, split) in enumerate([("a", "train"), ("b", "test"), ("b", "test"), ("distractor", "test"), ("-1", "test")]):
        save(picture(number), root / f"{number}.png")
        rows.append(f"{number}.png,{pid},{number},Somebody in a coat {number}.,{split}")
    (root / "table.csv").write_text("\n".join(rows))
    (test,) = read_test_sets(
        build(tmp_path, tmp_path / "out", datasets=({"format": "table", "folder": "people", "use": ["train", "test"]},))
    )
    assert test.tasks == [T2I, I2I] and test.captions["caption"].tolist() == ["Somebody in a coat 1.", "Somebody in a coat 2."]
    assert sorted(test.images["pid"]) == [-1, 0, 1, 1]


def test_all_that_the_report_reads(clip: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(write_people(tmp_path / "many", 12, 4),), test_share=0.6)
    towers = extractor(clip, routed=True)
    encoded = encoded_tests(towers, tables)
    metrics, found = evaluate_model(encoded, OPTIONS)
    plain = evaluate_towers(towers, tables, OPTIONS)
    results = score_sets(encoded, OPTIONS)
    scored = scores_tables(results)
    assert arrange(results, intervals=True) == {task: metrics[task] for task in ("t2i", "i2i")}
    assert list(scored) == ["scores_t2i", "scores_i2i"] and all(table.equals(found[name]) for name, table in scored.items())
    assert set(metrics) == {"t2i", "i2i", "datasets", "composed", "open_set"}
    assert metrics["datasets"] == dict.fromkeys(("t2i", "i2i"), encoded[0].dataset.name)
    for task in ("t2i", "i2i"):
        assert plain[task].items() <= metrics[task].items()
        for name in ("rank1", "mAP"):
            assert metrics[task][f"{name}_ci_low"] <= metrics[task][name] <= metrics[task][f"{name}_ci_high"]
        detected = metrics["open_set"][task]
        assert list(detected) == ["detection_rate", "detection_rate_ci_low", "detection_rate_ci_high", "num_known", "num_unknown"]
        assert detected["detection_rate_ci_low"] <= detected["detection_rate"] <= detected["detection_rate_ci_high"]
        scores = found[f"scores_{task}"]
        key = "caption_id" if task == "t2i" else "query_image_id"
        assert list(scores) == ["dataset", key, "pid", "camid", "num_matches", "first_rank", "ap", "inp"]
        assert round(100 * scores["ap"].mean(), 2) == metrics[task]["mAP"] and len(scores) == metrics[task]["num_queries"]
        bins = found["similarities"].query(f"task == '{task}'")
        assert len(bins) == 60 and bins["matches"].sum() == scores["num_matches"].sum()
        assert (bins["low"].to_numpy()[1:] == bins["high"].to_numpy()[:-1]).all()
        queries, gallery = encoded[0].dataset.queries_and_gallery(TASKS[task])
        ignored = (queries[["pid", "camid"]].merge(gallery, on=["pid", "camid"]).shape[0]) if task == "i2i" else 0
        assert bins[["matches", "others"]].to_numpy().sum() == len(queries) * len(gallery) - ignored
    assert set(metrics["composed"]) == {"both", "picture", "sentence", "gain_over_picture", "gain_over_sentence", "counts"}
    assert list(found["similarities"]) == ["task", "dataset", "low", "high", "matches", "others"]

    tokens = choose_tokens(encoded)
    assert tokens["image_ids"].tolist() == encoded[0].dataset.images["image_id"].tolist() and tokens["t2i"].dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(tokens["i2i"].astype(float), axis=1), 1, atol=2e-3)
    monkeypatch.setattr("hpl.analysis.evaluate.NUM_TOKENS", 9)
    few = choose_tokens(encoded)["image_ids"]
    assert len(few) == 8 and tables.images.loc[few].groupby("person").size().tolist() == [4, 4]  # whole people


def test_i2i_behind_the_neck_or_by_both_tokens(clip: CLIP, people: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(OWN,))
    (encoded,) = encoded_tests(extractor(clip, routed=True), tables)
    rng = np.random.default_rng(0)
    scale, shift = rng.normal(size=(2, encoded.i2i.shape[1])).astype(np.float32)
    behind = encoded.behind((scale, shift))
    np.testing.assert_allclose(behind.i2i, encoded.i2i * scale + shift)
    assert behind.t2i is encoded.t2i and behind.text is encoded.text

    both = OPTIONS.model_copy(update={"i2i_tokens": "both"})

    def matrix(options: object, task: Task) -> np.ndarray:
        blocks, _ = encoded.similarities(task, options)
        return np.concatenate([block for _, block in blocks])

    (by_own, joined), by_t2i = (matrix(options, I2I) for options in (OPTIONS, both)), encoded.t2i
    by_t2i = by_t2i / np.linalg.norm(by_t2i, axis=1, keepdims=True)
    rows, columns = (
        np.searchsorted(encoded.dataset.images["image_id"], side["image_id"]) for side in encoded.dataset.queries_and_gallery(I2I)
    )
    np.testing.assert_allclose(joined, (by_own + by_t2i[rows] @ by_t2i[columns].T) / 2, atol=1e-5)
    np.testing.assert_array_equal(matrix(OPTIONS, T2I), matrix(both, T2I))


def test_what_is_off_by_default_is_labelled_when_it_is_on(clip: CLIP, people: Path, tmp_path: Path) -> None:
    tables = build(tmp_path, tmp_path / "out", datasets=(OWN,))
    assert describe_settings(OPTIONS)["label"] == ""
    options = OPTIONS.model_copy(update={"rerank": True, "flip": True})
    towers = extractor(clip, flip=True)
    metrics, _ = evaluate_model(encoded_tests(towers, tables), options)
    assert metrics["settings"] == {"flip": 1, "rerank": 1}
    assert "mirror image" in describe_settings(options)["label"] and "k1 = 20" in describe_settings(options)["label"]
    assert evaluate_towers(towers, tables, options)["i2i"].items() <= metrics["i2i"].items()
