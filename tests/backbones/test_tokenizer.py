"""Captions at and over the 77 tokens that CLIP reads."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpl.backbones.tokenizer import token_lengths, tokenize
from hpl.backbones.towers import TextTower, at_end, end_positions
from hpl.backbones.weights import build_clip
from hpl.batches.loading import TrainingData
from hpl.config import Cache, load_params
from hpl.prompts.cache import FeatureCache, cache_features
from tests.support.naive import BEGIN, END, A
from tests.support.parameters import with_profile
from tests.support.tiny import SIZE, TINY
from tests.support.toy import Tables

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
CONTEXT = PARAMS.profiles["paper-cuhk-market"].input.context_length
CAPTIONS = ["A man, it's 12 o'clock; I'LL go & see!", "l\u00e4den's <b>x</b> &amp; $5.00__", "<end_of_tex> <start of text>"]


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


@pytest.mark.parametrize("name", ["end_of_text", "start_of_text"])
@pytest.mark.parametrize("written", ["<{}>", "<{}>".upper(), "&lt;{}&gt;", "\uff1c{}\uff1e"])
def test_the_name_of_a_special_token_is_text_as_any_other(name: str, written: str) -> None:
    """However it is spelled: open_clip resolves entities and wide letters, then small letters."""
    (ids,) = tokenize([f"A man {written.format(name)} in red."], CONTEXT)
    pieces = open_clip.tokenize(["A man", "<", name, ">", "in red."], CONTEXT)
    expected = [BEGIN, *(int(id) for row in pieces for id in row if id not in (BEGIN, END, 0)), END]
    assert ids[: len(expected)].tolist() == expected and not ids[len(expected) :].any()
    assert end_positions(ids[None]).tolist() == [len(expected) - 1] and token_lengths([written.format(name)]) == [9]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.text() | st.text("<>_'sStTeEofxd 0&;") | st.sampled_from(CAPTIONS), min_size=1, max_size=5))
def test_every_other_caption_has_the_ids_that_open_clip_gives(captions: list[str]) -> None:
    expected = open_clip.tokenize(captions, CONTEXT)
    assert torch.equal(tokenize(captions, CONTEXT), expected)


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
    params = with_profile(PARAMS, cache_features=Cache(batch_size=3, shard_rows=4), input=SIZE)
    cache_features(clip, TrainingData(tables, tmp_path), params, tmp_path, torch.device("cpu"))
    cache = FeatureCache(tmp_path)
    tokens, ends = cache.text_batch(np.arange(4))
    assert ends.tolist() == [31, 31, 31, 4] and tokens.shape == (4, SIZE.context_length, 16)
    with torch.no_grad():
        expected = at_end(*texts(tokenize(tables.captions["caption"][:4], SIZE.context_length)))
    torch.testing.assert_close(at_end(tokens, ends), expected, rtol=2e-3, atol=2e-3)  # kept in half precision
