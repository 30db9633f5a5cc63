"""Queries of picture and sentence: which pairs there are, what is in their gallery, and the mean of both."""

import numpy as np
import pandas as pd
import pytest

from hpl.analysis import composed
from hpl.analysis.composed import composed_pairs
from hpl.evaluation.similarity import unit
from hpl.retrieval.figures import Encoded
from hpl.retrieval.sets import RetrievalSet
from hpl.tasks import T2I


def evaluate_composed(text, t2i, i2i, captions: pd.DataFrame, images: pd.DataFrame, weight: float) -> dict:
    return composed.evaluate_composed(Encoded(RetrievalSet("S", [T2I], captions, images), t2i, i2i, text), weight)


def tables(num_people: int, num_pictures: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    pids = np.repeat(np.arange(1, num_people + 1), num_pictures)
    images = pd.DataFrame({"image_id": 100 + np.arange(len(pids)), "pid": pids, "camid": -1, "sha256": np.arange(len(pids))})
    captions = images.loc[np.repeat(images.index, 2), ["image_id", "pid"]].reset_index(drop=True)
    return captions.assign(caption_id=np.arange(len(captions))), images


def test_each_caption_once_with_another_picture_of_the_person() -> None:
    captions, images = tables(20, 4)
    asked, shown = composed_pairs(captions, images)
    assert asked.tolist() == list(range(len(captions)))
    assert (captions["pid"].to_numpy() == images["pid"].to_numpy()[shown]).all()
    assert (captions["image_id"].to_numpy() != images["image_id"].to_numpy()[shown]).all()
    assert len(set(shown)) > 40  # not the same picture each time
    order = np.random.default_rng(0).permutation(len(images))
    again = composed_pairs(captions, images.iloc[order].reset_index(drop=True))
    assert (order[again[1]] == shown).all()  # the order of rows does not matter


def test_a_person_with_one_picture_cannot_be_asked_for() -> None:
    captions, images = tables(3, 1)
    assert len(composed_pairs(captions, images)[0]) == 0
    features = np.eye(3, dtype=np.float32)
    assert evaluate_composed(features[captions["pid"] - 1], features, features, captions, images, 0.5) == {}


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_against_a_naive_loop(weight: float, cameras: bool, copies: bool) -> None:
    generator = np.random.default_rng(3)
    captions, images = tables(7, 4)
    images.loc[[2, 9, 20], "pid"] = [0, -1, 0]  # distractors and junk, which have no captions
    captions = captions[~captions["image_id"].isin([102, 109, 120])].reset_index(drop=True)
    if cameras:
        images["camid"] = generator.integers(0, 3, len(images))
    if copies:  # of one person, of two people, as a distractor and as junk
        images.loc[[1, 13, 2, 9], "sha256"] = images["sha256"][[0, 12, 5, 16]].to_numpy()
    num_copies = 0
    who = generator.standard_normal((9, 5))[images["pid"]]
    t2i, i2i = (who + generator.standard_normal(who.shape) for _ in range(2))
    row_of = {image_id: row for row, image_id in enumerate(images["image_id"])}
    text = t2i[[row_of[image_id] for image_id in captions["image_id"]]] + generator.standard_normal((len(captions), 5))
    got = evaluate_composed(text, t2i, i2i, captions, images, weight)

    results = {"both": [], "picture": [], "sentence": []}
    for caption, picture in zip(*composed_pairs(captions, images)):
        pid, camid = images["pid"][picture], images["camid"][picture]
        gallery = [
            g
            for g in range(len(images))
            if images["sha256"][g] != images["sha256"][picture]
            and images["pid"][g] != -1
            and not (cameras and images["pid"][g] == pid and images["camid"][g] == camid)
        ]
        itself = (images["sha256"] == images["sha256"][picture]) & (images["pid"] != -1)
        num_copies += itself.sum() - 1
        assert images["sha256"][row_of[captions["image_id"][caption]]] != images["sha256"][picture]
        by_sentence = np.array([unit(text[[caption]])[0] @ unit(t2i[[g]])[0] for g in gallery], float)
        by_picture = np.array([unit(i2i[[picture]])[0] @ unit(i2i[[g]])[0] for g in gallery], float)
        mixed = unit(weight * unit(text[[caption]]) + (1 - weight) * unit(t2i[[picture]]))[0]
        together = np.array([mixed @ unit(t2i[[g]])[0] for g in gallery], float)
        standard = [(scores - scores.mean()) / scores.std() for scores in (by_picture, together)]
        right = images["pid"].to_numpy()[gallery] == pid
        if not right.any():
            continue
        both = (standard[0] + standard[1]) / 2
        for name, scores in (("both", both), ("picture", by_picture), ("sentence", by_sentence)):
            ranks = np.flatnonzero(right[np.argsort(-scores, kind="stable")]) + 1
            results[name].append([ranks[0] == 1, np.mean(np.arange(1, len(ranks) + 1) / ranks)])
    for name, rows in results.items():
        assert [got[name]["rank1"], got[name]["mAP"]] == pytest.approx(100 * np.mean(rows, axis=0))
        assert got[name]["mAP_ci_low"] <= got[name]["mAP"] <= got[name]["mAP_ci_high"]
        counts = {"num_queries": len(rows), "num_skipped": len(captions) - len(rows)}
        assert got["counts"] == counts | ({"num_copies_ignored": num_copies} if copies else {}) and copies == (num_copies > 0)
    for name in ("picture", "sentence"):
        gain = got[f"gain_over_{name}"]
        assert gain["mAP"] == pytest.approx(got["both"]["mAP"] - got[name]["mAP"])
        assert gain["rank1_ci_low"] <= gain["rank1"] <= gain["rank1_ci_high"]
    if not weight:  # then the sentence has no say
        assert evaluate_composed(-text, t2i, i2i, captions, images, weight)["both"] == got["both"]
