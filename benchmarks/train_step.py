"""What a stage II step costs, and where the time goes: samples a second, memory, arithmetic, and each loss's share.

    python benchmarks/train_step.py --profile bundled
    python benchmarks/train_step.py --profile paper-cuhk-market --device cuda --compile --checkpointing --micro-batch 32
    python benchmarks/train_step.py --profile paper-cuhk-market --batch 8 --steps 3

Random weights at the profile's shapes (nothing is downloaded), random pictures, captions of 15 to 60 tokens, 1,000 identities
unless said otherwise. `plain` is the same model in fp32 with torch's default Adam, every caption padded to the context length and
every block computed whole; `ours` is the step as stage II takes it (fused Adam, captions cut at the longest of the batch, last
blocks for what is read of them), `ours, bf16` the same under autocast. The options add ways, in bf16 on a GPU and else in fp32.
All alternate in one run, and a figure is the median. With one CPU thread it is seconds of that thread's work, to which other
programs add little. Arithmetic is counted by torch's own counter over forward and backward, without what is computed twice; the
device's matmul rate is the best of three square products in the same run. A loss's share is its forward and backward to the
features, by itself. Pictures are those that one worker reads from packed arrays and augments.
"""

import argparse
import resource
import statistics
import tempfile
import time
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stage_one import clip_of
from hpl.backbones.encoding import normalise
from hpl.backbones.towers import ImageTower, TextTower, compile_blocks, frozen_copy
from hpl.batches.loading import Batch, TrainingPictures
from hpl.batches.transforms import augment
from hpl.config import Params, Profile, load_params
from hpl.manifests.shards import ShardWriter
from hpl.prompts import inversion
from hpl.prompts.learned import LearnedPrompts
from hpl.runtime.device import prepare_device
from hpl.training.model import HPL, TERMS, Compared
from hpl.training.optimizer import parameter_groups

END = 49407  # CLIP's end-of-text


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def whole_blocks() -> ExitStack:
    """While it is entered, no last block leaves out what nobody reads."""
    stack = ExitStack()
    stack.enter_context(patch.object(ImageTower, "classes", lambda self, images: self(images)[:, :2]))
    stack.enter_context(patch.object(TextTower, "encode_last", lambda self, embeddings: self.encode(embeddings)[:, -1]))
    run_block = lambda block, x, num_kept, padding: block(x, src_key_padding_mask=padding)[:, :num_kept]  # noqa: E731
    stack.enter_context(patch.object(inversion, "_run_block", run_block))
    return stack


def loading_rate(profile: Profile) -> float:
    """Pictures a second, read from packed arrays, augmented and normalised by this thread."""
    count, size, train = 512, profile.input, profile.train
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder), "pictures", count) as writer:
            writer.append(np.random.default_rng(0).integers(0, 256, (count, 3, size.height, size.width), dtype=np.uint8))
        reader = TrainingPictures(None, Path(folder), pd.DataFrame({"image_id": range(count), "pack_row": range(count)}), size)
        seconds = []
        for rows in np.random.default_rng(1).integers(0, count, (6, 128)):
            start = clock(torch.device("cpu"))
            normalise(augment(reader.read(rows), train.pad, train.erase_probability, seed=int(rows[0])))
            seconds.append(clock(torch.device("cpu")) - start)
    return 128 / statistics.median(seconds[1:])


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds counted as two operations, a second, of a square product."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        start = clock(device)
        left @ right
        best = min(best, clock(device) - start)
    return 2 * size**3 / best


def make_batch(count: int, people: int, size: tuple[int, int, int], padded: bool, device: torch.device) -> Batch:
    height, width, context = size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2 * count, 3, height, width, generator=generator)
    lengths = torch.randint(15, min(60, context), (count,), generator=generator)
    if padded:
        lengths[0] = context
    tokens = torch.randint(1, 49000, (count, context), generator=generator)
    tokens[torch.arange(context)[None] >= lengths[:, None]] = 0
    tokens[torch.arange(count), lengths - 1] = END
    pairs = torch.randint(0, people, (count,), generator=generator)
    pictures = torch.randint(0, people, (-(-count // 4),), generator=generator).repeat_interleave(4)[:count]
    return Batch(images, tokens, torch.cat([pairs, pictures]), count).to(device)


def loss_shares(hpl: HPL, batch: Batch, params: Params, device: torch.device) -> dict[str, float]:
    """Milliseconds of each loss, from features to the gradient of the features."""
    count, width, tokens = batch.num_captioned, hpl.t2i_classifier.in_features, params.prompt.instance_tokens

    def features(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, requires_grad=True)

    compared = Compared(
        text_TD=features(count, width),
        image_instance_TKW=features(count, tokens, hpl.texts.width),
        text_instance_TKW=features(count, tokens, hpl.texts.width),
        image_prompts_TD=features(count, width),
        text_prompts_TD=features(count, width),
        v_t2i_TD=features(count, width),
        v_i2i_SD=features(len(batch.labels_B), width),
        labels_T=batch.labels_B[:count],
        labels_S=batch.labels_B,
        loss=params.loss,
    )
    times = {}
    for name, term in TERMS.items():
        seconds = []
        for _ in range(6):
            start = clock(device)
            term.compute(hpl, compared).backward()
            seconds.append(clock(device) - start)
        times[name] = 1000 * statistics.median(seconds[1:])
    return times


def towers(hpl: HPL) -> list[torch.nn.Module]:
    return [hpl.images.visual.transformer, hpl.texts.transformer]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="bundled")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, help="pairs, and as many pictures; the profile's by default")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="also with train.compile; takes minutes")
    parser.add_argument("--checkpointing", action="store_true", help="also with train.gradient_checkpointing")
    parser.add_argument("--micro-batch", type=int, help="also with train.micro_batch of that many")
    options = parser.parse_args()
    params = load_params(Path(__file__).parent.parent / "params.yaml", [f"profile={options.profile}"])
    profile = params.active
    device = prepare_device(options.device, options.threads or params.num_threads, 0)
    count = options.batch or profile.train.t2i_batch
    clip = clip_of(params)
    prompts = LearnedPrompts(params.prompt, profile.inversion, frozen_copy(TextTower(clip)), list(range(options.people)))
    hpl = HPL(clip, params.model, options.people, prompts, 0).to(device).train()
    size = profile.input.height, profile.input.width, profile.input.context_length
    cut, padded = (make_batch(count, options.people, size, full, device) for full in (False, True))

    def losses(model: HPL, batch: Batch, micro_batch: int | None = None) -> Tensor:
        return sum(model(batch, params.loss, params.tasks, micro_batch)[0].values())

    def adam(model: HPL, **how: bool) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameter_groups(model, profile.train), lr=1e-6, **how)

    def step(
        model: HPL,
        batch: Batch,
        optimizer: torch.optim.Optimizer,
        amp: bool,
        checkpointing: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        for transformer in towers(model):
            transformer.grad_checkpointing = checkpointing
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            total = losses(model, batch, micro_batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def plain_step() -> None:
        with whole_blocks():
            step(hpl, padded, plain, False)

    plain, fused, half = adam(hpl), adam(hpl, fused=True), device.type == "cuda"
    ways = {
        "plain, fp32": plain_step,
        "ours, fp32": lambda: step(hpl, cut, fused, False),
        "ours, bf16": lambda: step(hpl, cut, fused, True),
    }
    name = f"ours, {'bf16' if half else 'fp32'}"
    if options.checkpointing:
        ways[f"{name}, checkpointing"] = lambda: step(hpl, cut, fused, half, checkpointing=True)
    if options.micro_batch:
        ways[f"{name}, micro-batch {options.micro_batch}"] = lambda: step(hpl, cut, fused, half, micro_batch=options.micro_batch)
    if options.compile:
        compiled = deepcopy(hpl)
        compile_blocks(towers(compiled), device)
        own_fused = adam(compiled, fused=True)
        ways[f"{name}, compiled"] = lambda: step(compiled, cut, own_fused, half)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory = {}
    for number in range(options.steps + 1):
        for name, way in ways.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            start = clock(device)
            way()
            if number:
                seconds[name].append(clock(device) - start)
            if device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated(device) / 2**30
    with FlopCounterMode(display=False) as counter:
        losses(hpl, cut).backward()
    with FlopCounterMode(display=False) as counter_whole, whole_blocks():
        losses(hpl, padded).backward()
    flops, whole_flops = counter.get_total_flops(), counter_whole.get_total_flops()
    rates = {dtype: max(matmul_rate(device, dtype) for _ in range(3)) for dtype in (torch.float32, torch.bfloat16)}
    print(
        f"{options.profile}, {count} pairs + {count} pictures of {size[0]} x {size[1]}, "
        f"{device}, {torch.get_num_threads()} threads"
    )
    print(f"{flops / 2 / count / 1e9:.2f} GFLOP a sample, plain {whole_flops / 2 / count / 1e9:.2f};", end=" ")
    print(f"matmul {rates[torch.float32] / 1e9:.0f} GFLOP/s in fp32, {rates[torch.bfloat16] / 1e9:.0f} in bf16")
    reference = statistics.median(seconds["plain, fp32"])
    for name, times in seconds.items():
        median = statistics.median(times)
        rate = rates[torch.bfloat16 if "bf16" in name else torch.float32]
        peak = f", {memory[name]:.2f} GiB" if memory else ""
        share = 100 * (whole_flops if name.startswith("plain") else flops) / median / rate
        print(
            f"  {name:28s}{median * 1000:9.1f} ms{2 * count / median:9.1f} samples/s{reference / median:7.2f} x plain, "
            f"{share:5.1f} % of the matmul rate{peak}"
        )
    print(f"  pictures made ready by one worker: {loading_rate(profile):.0f} a second")
    if not memory:
        print(f"  peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    times = loss_shares(hpl, cut, params, device)
    median = 1000 * statistics.median(seconds["ours, fp32"])
    print(
        "losses, of the fp32 step: "
        + ", ".join(f"{name} {value:.2f} ms ({100 * value / median:.1f} %)" for name, value in times.items())
    )


if __name__ == "__main__":
    main()
