"""Token positions of the prompts, the inversion networks, the cache, and stage I on it."""

from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import TextTower, at_end, frozen_copy
from hpl.config import Construct, Inversion, Loss, Prompt, load_params
from hpl.files import HplError
from hpl.manifests.shards import ShardWriter
from hpl.prompts.cache import CachedBatch, FeatureCache
from hpl.prompts.construct import construct_losses, construct_prompts
from hpl.prompts.inversion import InversionNetwork
from hpl.prompts.learned import LearnedPrompts, load_prompts, save_prompts
from hpl.prompts.template import PromptEncoder
from tests.support.parameters import with_profile

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PROMPT: Prompt = PARAMS.prompt
INVERSION = Inversion(layers=1, heads=2)
LOSS: Loss = PARAMS.loss


def encoder(clip: CLIP) -> PromptEncoder:
    return PromptEncoder(frozen_copy(TextTower(clip)))


def test_a_prompt_of_word_embeddings_is_the_sentence(clip: CLIP) -> None:
    """With the embeddings of words in the bracketed places, the prompt is plain CLIP text."""
    words = open_clip.tokenizer.SimpleTokenizer()
    identity = clip.token_embedding(torch.tensor([words.encode("young tall thin smiling")]))
    instance = clip.token_embedding(torch.tensor([words.encode("red green blue black")]))
    prompts = encoder(clip)
    ids = tokenize(
        ["A photo of young tall thin smiling and red green blue black person.", "A photo of young tall thin smiling person."], 32
    )
    expected = clip.encode_text(ids)
    torch.testing.assert_close(prompts.instance_prompt(identity, instance), expected[:1])
    torch.testing.assert_close(prompts.identity_prompt(identity), expected[1:])


def test_token_positions(clip: CLIP) -> None:
    prompts = encoder(clip)
    identity, instance = torch.full((2, 4, 24), 5.0), torch.full((2, 3, 24), 9.0)
    embeddings = prompts.embed([prompts.opening, identity, prompts.link, instance, prompts.closing])
    assert embeddings.shape == (2, 1 + 3 + 4 + 1 + 3 + 3, 24)  # sot, a photo of, ids, and, instances, person . eot
    torch.testing.assert_close(embeddings[:, 4:8], identity)
    torch.testing.assert_close(embeddings[:, 9:12], instance)
    torch.testing.assert_close(embeddings[0, -1], clip.token_embedding.weight[49407])
    torch.testing.assert_close(embeddings[0, 0], clip.token_embedding.weight[49406])


def test_a_prompt_over_the_context_length_is_refused(clip: CLIP) -> None:
    with pytest.raises(HplError, match="prompt of 37 tokens; the text tower reads 32"):
        encoder(clip).instance_prompt(torch.zeros(1, 20, 24), torch.zeros(1, 9, 24))


def inversion(num_tokens: int = 4) -> InversionNetwork:
    torch.manual_seed(0)
    return InversionNetwork(input_width=16, output_width=24, num_tokens=num_tokens, num_layers=2, num_heads=2, output_scale=0.5)


def test_inversion_ignores_what_follows_the_end() -> None:
    network, tokens, ends = inversion(), torch.randn(2, 7, 16), torch.tensor([3, 6])
    changed = tokens.clone()
    changed[0, 4:] = 100.0
    torch.testing.assert_close(network(tokens, ends), network(changed, ends))
    torch.testing.assert_close(network(tokens[:1, :4]), network(tokens, ends)[:1])
    assert not torch.allclose(network(tokens[1:], ends[1:]), network(changed[:1], ends[1:]))


def test_layers_do_not_start_as_copies_of_one_another() -> None:
    first, second = inversion().blocks
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_fresh_pseudo_tokens_have_the_scale_of_word_embeddings() -> None:
    out = inversion()(torch.randn(64, 9, 16))
    assert out.shape == (64, 4, 24) and 0.3 < float(out.detach().std()) < 0.7


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Six pictures of three people; pictures 0, 1, 3 have 2, 1, 1 captions. Values tell where they came from."""
    pictures = pd.DataFrame({"image_id": [10, 11, 12, 13, 14, 15], "pid": [5, 5, 8, 8, 9, 9]})
    lengths = np.array([3, 5, 2, 4])
    captions = pd.DataFrame({"picture": [0, 0, 1, 3], "start": np.cumsum(lengths) - lengths, "length": lengths})
    pictures.to_parquet(tmp_path / "pictures.parquet"), captions.to_parquet(tmp_path / "captions.parquet")
    generator = np.random.default_rng(0)
    with ShardWriter(tmp_path, "image_tokens", 4) as writer:
        writer.append(generator.normal(size=(6, 10, 16)).astype(np.float16))
    with ShardWriter(tmp_path, "text_tokens", 6) as writer:
        writer.append(np.arange(14, dtype=np.float16)[:, None].repeat(16, axis=1) / 8)
    return FeatureCache(tmp_path)


def test_cached_captions_come_back_whole_and_end_where_they_end(cache: FeatureCache) -> None:
    tokens, ends = cache.text_batch(np.array([3, 0]))
    assert ends.tolist() == [3, 2] and tokens.shape == (2, 4, 16)
    assert (tokens[0, :, 0] * 8).tolist() == [10, 11, 12, 13] and (tokens[1, :, 0] * 8).tolist() == [0, 1, 2, 0]
    assert (at_end(tokens, ends)[:, 0] * 8).tolist() == [13, 2]


def test_a_picture_gets_one_of_its_own_captions(cache: FeatureCache) -> None:
    generator = np.random.default_rng(0)
    drawn = np.array([cache.captions_of(np.arange(6), generator) for _ in range(50)])
    assert [set(column.tolist()) for column in drawn.T] == [{0, 1}, {2}, {-1}, {3}, {-1}, {-1}]


@pytest.mark.parametrize(
    "name, content",
    [
        ("pictures.parquet", b"PAR1"),
        ("pictures.parquet", pd.DataFrame({"image_id": [1], "pid": [2]})),
        ("pictures.parquet", pd.DataFrame({"image_id": range(6)})),
        ("captions.parquet", None),
        ("captions.parquet", pd.DataFrame({"picture": [0, 9], "start": [0, 7], "length": [7, 7]})),
        ("captions.parquet", pd.DataFrame({"picture": [1, 0], "start": [0, 7], "length": [7, 7]})),
        ("captions.parquet", pd.DataFrame({"picture": [0, 1], "start": [0, 7], "length": [7, 9]})),
        ("captions.parquet", pd.DataFrame({"picture": [0, 1], "start": [0, 14], "length": [14, 0]})),
        ("captions.parquet", pd.DataFrame({"picture": ["x"], "start": [0], "length": [14]})),
        ("image_tokens-00001.npy", None),
        ("image_tokens-00001.npy", b"\x93NUMPY\x01\x00F\x00{'descr'"),
        ("image_tokens-00001.npy", np.zeros((2, 10, 15), np.float16)),
        ("image_tokens-00001.npy", np.zeros((2, 10, 16), "S3")),
        ("image_tokens-00001.npy", np.float16(3)),
        ("text_tokens-00000.npy", np.zeros((3, 16), np.float16)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_damaged_cache_is_named_with_the_way_out(cache: FeatureCache, tmp_path: Path, name: str, content: object) -> None:
    file = tmp_path / name
    file.unlink()
    if isinstance(content, pd.DataFrame):
        content.to_parquet(file)
    elif isinstance(content, np.ndarray | np.generic):
        np.save(file, content)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(HplError, match="delete .* and run the (cache_features stage again|stage that writes it)") as caught:
        FeatureCache(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def options(**changes: object) -> Construct:
    defaults = {"epochs": 3, "batch_size": 4, "inversion_lr": 1e-3, "identity_lr": 0.02, "lr_decay": 0.8}
    return Construct(**{**defaults, **changes})


def test_stage_one_trains_what_it_should_and_keeps_r(cache: FeatureCache, clip: CLIP, tmp_path: Path) -> None:
    tower = frozen_copy(TextTower(clip))
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    torch.manual_seed(0)
    params = with_profile(PARAMS, inversion=INVERSION, construct_prompts=options(epochs=12))
    prompts, curves = construct_prompts(cache, tower, params, torch.device("cpu"))
    assert prompts.pids.tolist() == [5, 8, 9]
    for name, value in tower.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert curves.rows[-1]["total"] < curves.rows[0]["total"]
    torch.testing.assert_close(prompts.identity_prompts, PromptEncoder(tower).identity_prompt(prompts.identity_tokens))
    save_prompts(tmp_path, prompts)
    again = load_prompts(tmp_path, PROMPT, INVERSION, tower)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in prompts.state_dict().items())


def test_gradients_of_stage_one_reach_networks_and_identity_tokens_alone(cache: FeatureCache, clip: CLIP) -> None:
    tower = frozen_copy(TextTower(clip))
    prompts = LearnedPrompts(PROMPT, INVERSION, tower, [5, 8, 9])
    text, ends = cache.text_batch(np.array([0, 3]))
    image = cache.image_batch(np.array([0, 3, 4]))
    batch = CachedBatch(image, text, ends, torch.tensor([0, 1, 2]))
    sum(construct_losses(prompts, PromptEncoder(tower), batch, LOSS)).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in prompts.parameters())
    assert all(parameter.grad is None for parameter in tower.parameters())


def test_a_batch_without_captions_trains(cache: FeatureCache, clip: CLIP) -> None:
    tower = frozen_copy(TextTower(clip))
    prompts = LearnedPrompts(PROMPT, INVERSION, tower, [5, 8, 9])
    text, ends = cache.text_batch(np.array([], dtype=int))
    batch = CachedBatch(cache.image_batch(np.array([2, 4])), text, ends, torch.tensor([1, 2]))
    assert all(torch.isfinite(loss) for loss in construct_losses(prompts, PromptEncoder(tower), batch, LOSS))


def test_prompts_of_another_shape_are_refused(clip: CLIP, tmp_path: Path) -> None:
    tower = frozen_copy(TextTower(clip))
    save_prompts(tmp_path, LearnedPrompts(PROMPT, INVERSION, tower, [1, 2]))
    with pytest.raises(HplError, match="made with other prompt parameters"):
        load_prompts(tmp_path, PROMPT.model_copy(update={"id_tokens": 2}), INVERSION, tower)
    save_prompts(tmp_path, None)
    with pytest.raises(HplError, match="made with prompt.enabled: false"):
        load_prompts(tmp_path, PROMPT, INVERSION, tower)
    file = tmp_path / "prompts.safetensors"
    for damaged in (b"", b"{}", b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(HplError, match="prompts.safetensors: damaged.*delete it and run the construct_prompts stage again"):
            load_prompts(tmp_path, PROMPT, INVERSION, tower)
    save_file({"pids": torch.tensor([0.5])}, file)
    with pytest.raises(HplError, match="prompts.safetensors: pids of torch.float32; delete it"):
        load_prompts(tmp_path, PROMPT, INVERSION, tower)
