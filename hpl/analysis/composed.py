"""Composed queries: a picture of a person, and a sentence that describes another picture of the same person.

The sentence corrects and complements the picture: it tells of a bag that this picture lacks, or of colours that its camera
changed. Query: picture a and a caption of picture b, a and b of one person, a other than b. Gallery: all test pictures but a.
Matches: all other pictures of that person, b among them. Where cameras are known, a is by another camera than b, and pictures of
that person by the camera of a are ignored too. What has the pixels of a is a, under whatever name: not in the gallery either.

Score: sentence and picture meet in the space of both, as the weighted mean of t_eos and v_t2i of a, each of unit length, whose
cosine with v_t2i is taken; beside it the cosine of v_i2i of a with v_i2i. Each is brought to mean 0 and deviation 1 over the
query's gallery, then both are averaged. Picture alone (v_i2i) and sentence alone (t_eos) are scored on the very same queries.
"""

import hashlib

import numpy as np
import pandas as pd

from hpl.evaluation.composition import composed_scores, mixed_query
from hpl.evaluation.metrics import score_block
from hpl.evaluation.protocols import Rule, task_rule
from hpl.evaluation.scores import Scores
from hpl.evaluation.similarity import cosine_blocks, unit_checked
from hpl.retrieval.figures import Encoded
from hpl.tasks import I2I

_HALVES = ("picture", "sentence")


def composed_pairs(captions: pd.DataFrame, images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Pair each caption with a picture chosen by a hash of the caption's id among the person's others, if there is one.

    The others are those of other pixels and, where cameras are known, by another camera than the described picture's: it would be
    ignored else.

    Args:
        captions: columns caption_id, image_id, pid; images: columns image_id, pid, camid, sha256.

    Returns:
        Rows of `captions`, and for each the row of `images` that is its picture.
    """
    rows_of = images.groupby("pid").indices
    image_ids, camids, pixels = (images[name].to_numpy(object) for name in ("image_id", "camid", "sha256"))
    described = {image_id: (camera, shown) for image_id, camera, shown in zip(image_ids, camids, pixels, strict=True)}
    pairs = []
    for number, caption in enumerate(captions[["caption_id", "image_id", "pid"]].itertuples(index=False)):
        camera, own = described[caption.image_id]
        others = [row for row in rows_of[caption.pid] if pixels[row] != own and (camera < 0 or camids[row] != camera)]
        if others:
            others.sort(key=image_ids.__getitem__)
            drawn = int.from_bytes(hashlib.sha256(str(caption.caption_id).encode()).digest()[:8])
            pairs.append((number, others[drawn % len(others)]))
    chosen = np.array(pairs, np.int64).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1]


def evaluate_composed(encoded: Encoded, weight: float) -> dict[str, dict[str, float]]:
    """Compute the figures of composed queries, and of their halves alone.

    Args:
        encoded: a set with captions (columns caption_id, image_id, pid) and pictures (image_id, pid, camid, sha256).
        weight: of t_eos, 0..1; v_t2i of the query picture has the rest.

    Returns:
        both, picture and sentence, each with rank1 and mAP in percent and their intervals; gain_over_picture and
        gain_over_sentence, what both together have more, likewise; counts, with num_queries and num_skipped, captions without
        another picture and queries without a match, and num_copies_ignored where the gallery had the query's picture once more.
        Empty if no person has two pictures that the rule tells apart.
    """
    captions, images = encoded.dataset.captions, encoded.dataset.images
    asked, shown = composed_pairs(captions, images)
    rule = task_rule(I2I, images.iloc[shown], images)
    pids, gallery = rule.query_pids, rule.kept
    text = unit_checked(encoded.text, "caption", len(captions))[asked]
    t2i, i2i = (unit_checked(features, "picture", len(images)) for features in (encoded.t2i, encoded.i2i))
    mixed = mixed_query(text, t2i[shown], weight)
    blocks = (cosine_blocks(left, right[gallery]) for left, right in ((text, t2i), (mixed, t2i), (i2i[shown], i2i)))
    tables: dict[str, list[pd.DataFrame]] = {"both": [], "picture": [], "sentence": []}
    for (start, sentence), (_, together), (_, picture) in zip(*blocks, strict=True):
        tables["picture"].append(score_block(picture, rule, start))
        tables["sentence"].append(score_block(sentence, rule, start))
        both = _composed(together, picture, rule, start)
        tables["both"].append(score_block(both, rule, start))
    scores = {name: Scores(pd.concat(found, ignore_index=True), pids) for name, found in tables.items() if found}
    if not scores or not scores["both"].table["num_matches"].any():
        return {}
    figures = {name: each.figures() for name, each in scores.items()}
    found = {name: {key: figures[name][key] for key in ("rank1", "mAP")} | each.intervals() for name, each in scores.items()}
    found |= {f"gain_over_{name}": scores["both"].gain_over(scores[name]) for name in _HALVES}
    counts = {name: figures["both"][name] for name in ("num_queries", "num_skipped")}
    counts["num_skipped"] += len(captions) - len(asked)
    if copies := rule.num_copies - len(asked):  # beyond the picture itself
        counts["num_copies_ignored"] = copies
    return {**found, "counts": counts}


def _composed(together: np.ndarray, picture: np.ndarray, rule: Rule, start: int) -> np.ndarray:
    """Score rows of queries over what the rule leaves of the gallery."""
    rows = np.empty_like(together)
    for number, row in enumerate(together):
        counted = np.ones(len(row), bool)
        counted[rule.positions(start + number)[1]] = False
        rows[number] = composed_scores(row, picture[number], counted)
    return rows
