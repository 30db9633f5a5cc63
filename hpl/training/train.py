"""Stage II, representation learning: the whole loop on one page."""

from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from tqdm import tqdm

from hpl.batches.curves import Curves, check_finite
from hpl.batches.loading import Step, StepDataset, load_steps
from hpl.batches.sampling import identity_batches, shuffled_batches
from hpl.batches.schedule import warmup_cosine
from hpl.batches.text import tokenize
from hpl.config import Input, Loss, Model, Train
from hpl.files import HplError
from hpl.manifests.tables import Manifests
from hpl.prompts.parts import PromptParts
from hpl.training.model import HPL, LOSSES


def train(
    clip: CLIP,
    parts: PromptParts | None,
    manifests: Manifests,
    packed: Path,
    *,
    model: Model,
    loss: Loss,
    tasks: list[str],
    options: Train,
    size: Input,
    seed: int,
    device: torch.device,
) -> tuple[HPL, Curves]:
    """Minimise L_total (eq. 14). Returns the model of the last epoch, on the CPU, and its loss curves.

    The test split is never read, and no epoch is chosen: what is evaluated is the last.
    """
    pictures = manifests.images[manifests.images["role"] == "train"]
    captions = manifests.captions[manifests.captions["role"] == "train"]
    pids = np.unique(pictures["pid"])
    if parts is not None and parts.pids.tolist() != pids.tolist():
        raise HplError("train: the prompts were made for other training identities; run the construct_prompts stage again")
    tokens = tokenize(captions["caption"], size.context_length)
    hpl = HPL(clip, model, len(pids), parts, seed).to(device)
    optimizer = torch.optim.Adam(
        hpl.parameter_groups(options.new_lr_factor, options.train_inversion),
        lr=options.start_lr,
        weight_decay=options.weight_decay,
        fused=True,
    )
    curves = Curves([*LOSSES, "total"])
    for epoch in range(1, options.epochs + 1):
        hpl.train()
        steps = epoch_steps(pictures, captions, pids, tasks, options, seed, epoch)
        loader = load_steps(
            StepDataset(packed, tokens, steps, options.pad, options.erase_probability), options.loader_workers, device
        )
        progress = tqdm(loader, total=len(steps), desc=f"train {epoch}/{options.epochs}", unit="steps")
        for number, batch in enumerate(progress):
            time = epoch - 1 + number / len(steps)
            lr = warmup_cosine(time, options.epochs, options.warmup_epochs, options.start_lr, options.peak_lr)
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_factor"]
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.amp):
                losses = hpl(batch, loss, tasks)
            check_finite(losses, f"train, epoch {epoch}, step {number + 1}")
            total = sum(losses.values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            curves.add({**losses, "total": total})
            progress.set_postfix({name: f"{float(value):.2f}" for name, value in losses.items()}, refresh=False)
        curves.end_epoch(epoch, lr=lr)
    return hpl.cpu().eval(), curves


def epoch_steps(pictures, captions, pids: np.ndarray, tasks: list[str], options: Train, seed: int, epoch: int) -> list[Step]:
    """The composition of each step: `t2i_batch` picture-caption pairs, then `i2i_batch` pictures of pictures without captions.

    Args:
        pictures, captions: the training rows of the manifests (pandas).
        pids: the training identities, sorted; a label is an index into them.
    """
    plain = pictures[~pictures["image_id"].isin(captions["image_id"])]
    pairs, people = [], []
    if "t2i" in tasks:
        if captions.empty:
            raise HplError("train: tasks holds t2i, but no training picture has a caption")
        pairs = shuffled_batches(len(captions), options.t2i_batch, seed, epoch, drop_last=True)
    if "i2i" in tasks:
        source = plain if len(plain) else pictures
        num_batches = len(pairs) or max(1, len(source) // options.i2i_batch)
        people = identity_batches(source["pid"].to_numpy(), num_batches, options.i2i_batch, options.num_instances, seed, epoch)
    caption_rows, caption_pids = captions["pack_row"].to_numpy(), captions["pid"].to_numpy()
    none = np.zeros(0, np.int64)
    steps = []
    for number in range(max(len(pairs), len(people))):
        pair = pairs[number] if pairs else none
        rows, labels = caption_rows[pair], caption_pids[pair]
        if people:
            rows = np.concatenate([rows, source["pack_row"].to_numpy()[people[number]]])
            labels = np.concatenate([labels, source["pid"].to_numpy()[people[number]]])
        steps.append(Step(rows, pair, np.searchsorted(pids, labels), seed=(seed * 1000 + epoch) * 10**6 + number))
    return steps
