"""Ways to compute a step that change its time and memory, not its losses and gradients; each against the plain way."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from hpl.backbones.towers import ImageTower, TextTower, compile_blocks
from hpl.files import HplError
from hpl.prompts.inversion import InversionNetwork
from hpl.runtime.device import out_of_memory
from hpl.training.model import HPL, Features, in_chunks
from tests.support.imports import ROOT
from tests.support.small_hpl import LOSS, batch, model

BOTH = ["t2i", "i2i"]
VARIANTS = {  # prompts, task routing, tasks, changes of `loss`
    "all": (True, True, BOTH, {}),
    "i2i batch": (True, True, BOTH, {"i2i_batch": "i2i"}),
    "text-guided": (True, True, BOTH, {"vision_guided": False, "prompt_reg": 0.0}),
    "vision-guided": (True, True, BOTH, {"text_guided": False, "prompt_reg": 0.0}),
    "CMPR": (True, True, BOTH, {"instance_align": 0.0}),
    "no instance losses": (True, True, BOTH, {"instance_align": 0.0, "prompt_reg": 0.0}),
    "no identity prompts": (True, True, BOTH, {"identity_prompt": 0.0}),
    "TRT": (False, True, BOTH, {}),
    "baseline": (False, False, BOTH, {}),
    "i2i": (True, True, ["i2i"], {}),
    "t2i": (True, True, ["t2i"], {}),
}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max() + 1e-12
        torch.testing.assert_close(actual[name] / scale, value / scale, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def result(hpl: HPL, tasks: list[str], changes: dict, micro_batch: int | None) -> dict[str, Tensor]:
    """Losses, gradients and the neck's statistics after one batch; the networks in float64."""
    inputs = batch()
    hpl.double()
    losses, _ = hpl(replace(inputs, images_B3HW=inputs.images_B3HW.double()), LOSS.model_copy(update=changes), tasks, micro_batch)
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in hpl.named_parameters() if parameter.grad is not None}
    return {
        **{name: value.detach() for name, value in losses.items()},
        **gradients,
        "mean": hpl.i2i_neck.running_mean,
        "variance": hpl.i2i_neck.running_var,
    }


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize(("micro_batch", "checkpointing"), [(2, False), (3, True), (None, True), (100, False)])
def test_losses_and_gradients_of_the_whole_batch(clip: CLIP, variant: str, micro_batch: int | None, checkpointing: bool) -> None:
    prompts, task_routing, tasks, changes = VARIANTS[variant]
    plain = model(clip, prompts, task_routing)
    ours = deepcopy(plain)
    for transformer in (ours.images.visual.transformer, ours.texts.transformer):
        transformer.grad_checkpointing = checkpointing
    assert_same(result(ours, tasks, changes, micro_batch), result(plain, tasks, changes, None))


def test_half_precision_in_micro_batches(clip: CLIP) -> None:
    plain = model(clip, prompts=True, task_routing=True)
    ours = deepcopy(plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, expected = ours(batch(), LOSS, BOTH, 2)[0], plain(batch(), LOSS, BOTH)[0]
    sum(losses.values()).backward(), sum(expected.values()).backward()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=3e-2, atol=1e-2)
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            assert (parameter.grad - theirs[name].grad).norm() <= 0.1 * theirs[name].grad.norm() + 1e-6, name


def test_no_more_than_a_micro_batch_at_a_time_and_nothing_is_kept_of_it() -> None:
    """Three chunks of 2, 2 and 1 rows, the last first in the backward; between the two, the activations of none are alive."""
    weight = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))
    rows, seen = torch.randn(5, 3, dtype=torch.float64), []

    def encode(chunk: Tensor) -> Features:
        seen.append(len(chunk))
        return Features(text_TD=(chunk @ weight).tanh())

    features = in_chunks(encode, 2, rows).text_TD
    torch.testing.assert_close(features, encode(rows).text_TD)
    assert seen == [2, 2, 1, 5]
    features.logsumexp(dim=0).sum().backward()  # a loss that no sum over chunks can give
    assert seen[4:] == [1, 2, 2]
    expected = torch.autograd.grad(encode(rows).text_TD.logsumexp(dim=0).sum(), weight)[0]
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize("task_routing", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_class_tokens_alone(clip: CLIP, task_routing: bool, checkpointing: bool) -> None:
    ours = ImageTower(clip, task_routing=task_routing, i2i_token_noise=0.5).double()
    plain, images = deepcopy(ours), torch.randn(3, 3, 24, 12, dtype=torch.float64)
    ours.visual.transformer.grad_checkpointing = checkpointing
    actual, expected = ours.classes(images), plain(images)[:, :2]
    torch.testing.assert_close(actual, expected)
    (actual**3).sum().backward(), (expected**3).sum().backward()
    assert_same_gradients(ours, plain)


def test_the_last_token_alone(clip: CLIP) -> None:
    ours = TextTower(clip).double()
    plain, embeddings = deepcopy(ours), torch.randn(3, 9, 24, dtype=torch.float64)
    actual, expected = ours.encode_last(embeddings), plain.encode(embeddings)[:, -1]
    torch.testing.assert_close(actual, expected)
    (actual**3).sum().backward(), (expected**3).sum().backward()
    assert_same_gradients(ours, plain)


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("ends", [None, [2, 6, 4]])
def test_pseudo_tokens_are_those_of_whole_layers(num_layers: int, ends: list[int] | None) -> None:
    torch.manual_seed(0)
    sizes = {"input_width": 16, "output_width": 24, "num_tokens": 3, "num_layers": num_layers, "num_heads": 2}
    ours = InversionNetwork(**sizes, output_scale=0.5).double()
    plain, tokens = deepcopy(ours), torch.randn(3, 7, 16, dtype=torch.float64)
    x, padding = torch.cat([plain.queries.expand(3, -1, -1), tokens], dim=1), None
    if ends is not None:
        padding = torch.arange(-3, 7)[None] > torch.tensor(ends)[:, None]
    for block in plain.blocks:
        x = block(x, src_key_padding_mask=padding)
    expected = plain.output(plain.norm(x))[:, :3]
    actual = ours(tokens, None if ends is None else torch.tensor(ends))
    torch.testing.assert_close(actual, expected)
    (actual**3).sum().backward(), (expected**3).sum().backward()
    assert_same_gradients(ours, plain)


def assert_same_gradients(ours: nn.Module, plain: nn.Module) -> None:
    given = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.grad is not None}
    expected = {name: parameter.grad for name, parameter in plain.named_parameters() if parameter.grad is not None}
    assert given.keys() == expected.keys() and given
    for name, gradient in expected.items():
        torch.testing.assert_close(given[name], gradient, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_compiled_blocks_keep_their_names_and_gradients(clip: CLIP) -> None:
    plain = model(clip, prompts=True, task_routing=True)
    ours = deepcopy(plain)
    compile_blocks([ours.images.visual.transformer, ours.texts.transformer], torch.device("cpu"))
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert_same(result(ours, BOTH, {}, 3), result(plain, BOTH, {}, None))


def test_without_a_compiler_the_user_is_told(tmp_path) -> None:
    code = "import torch; from hpl.backbones.towers import compile_blocks; compile_blocks([], torch.device('cpu'))"
    nowhere = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | nowhere, capture_output=True, text=True)
    assert "HplError: train.compile: true, but torch.compile finds no working compiler for cpu" in ended.stderr


def test_too_little_gpu_memory_is_one_line() -> None:
    @out_of_memory("lower the batch")
    def step(error: Exception | None) -> str:
        if error:
            raise error
        return "done"

    assert step(None) == "done"
    told = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.6 GiB"
    with pytest.raises(HplError, match=r"^out of GPU memory \(Tried to allocate 2.00 GiB\); lower the batch$"):
        step(torch.OutOfMemoryError(told))
    with pytest.raises(RuntimeError, match="another"):
        step(RuntimeError("another"))
