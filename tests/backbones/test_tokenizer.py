"""Captions at and over the 77 tokens that CLIP reads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hpl.backbones.tokenizer import token_lengths, tokenize
from hpl.backbones.towers import ImageTower, TextTower, at_end, end_positions
from hpl.backbones.weights import build_clip
from hpl.config import Cache, load_params
from hpl.prompts.cache import cache_features
from hpl.prompts.features import FeatureCache
from tests.support.naive import BEGIN, END, A
from tests.support.tiny import SIZE, TINY
from tests.support.toy import Tables

CONTEXT = load_params(Path(__file__).parents[2] / "params.yaml").profiles["paper-cuhk-market"].input.context_length


def words(count: int) -> str:
    return " ".join(["a"] * count)


@pytest.mark.parametrize("length", [76, 77, 78, 120])
def test_a_long_caption_is_cut_and_still_ends(length: int) -> None:
    caption = words(length - 2)  # begin and end of text are tokens too
    assert CONTEXT == 77 and token_lengths([caption]).tolist() == [length]
    kept = min(length, 77)
    (ids,) = tokenize([caption], CONTEXT)
    assert ids.tolist() == [BEGIN, *[A] * (kept - 2), END, *[0] * (77 - kept)]
    assert end_positions(ids[None]).tolist() == [kept - 1]


def test_the_feature_of_a_cut_caption_is_that_of_its_beginning() -> None:
    torch.manual_seed(0)
    clip = build_clip({**TINY, "text_cfg": {**TINY["text_cfg"], "context_length": 77}}).eval()
    features = at_end(*TextTower(clip)(tokenize([words(118), words(76), words(75), words(74)], CONTEXT)))
    assert features.shape == (4, 16) and features.isfinite().all()
    assert torch.equal(features[0], features[2]) and torch.equal(features[1], features[2])
    assert not torch.allclose(features[2], features[3])


def test_stage_one_reads_a_cut_caption_to_its_end(clip, tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.captions["caption"] = [words(118), words(75), words(30), "A child.", *tables.captions["caption"][4:]]
    texts = TextTower(clip)
    options = Cache(batch_size=3, shard_rows=4)
    cache_features(ImageTower(clip, task_routing=True), texts, tables, tmp_path, options, SIZE, tmp_path, torch.device("cpu"))
    cache = FeatureCache(tmp_path)
    tokens, ends = cache.text_batch(np.arange(4))
    assert ends.tolist() == [31, 31, 31, 4] and tokens.shape == (4, SIZE.context_length, 16)
    with torch.no_grad():
        expected = at_end(*texts(tokenize(tables.captions["caption"][:4], SIZE.context_length)))
    torch.testing.assert_close(at_end(tokens, ends), expected, rtol=2e-3, atol=2e-3)  # kept in half precision
