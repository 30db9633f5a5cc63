"""Stage I, prompt construction: eqs. 6, 8, 9 and 13. The towers are frozen; their features come from the cache."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hpl.backbones.towers import TextTower, at_end
from hpl.batches.sampling import shuffled_batches
from hpl.config import Loss, Params
from hpl.losses.alignment import instance_consistency_loss
from hpl.losses.contrast import prompt_contrast_losses
from hpl.prompts.cache import CachedBatch, FeatureCache
from hpl.prompts.learned import LearnedPrompts
from hpl.prompts.template import PromptEncoder
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint, Stateful
from hpl.runtime.curves import Curves, check_finite

_V_T2I = 0  # place of v_t2i in F_v


class ConstructLosses(NamedTuple):
    """The terms of L_construct (eq. 13), which is their sum."""

    t2i: Tensor  # eq. 8
    i2t: Tensor  # eq. 9
    ic: Tensor  # eq. 6


def construct_prompts(
    cache: FeatureCache, prompt_tower: TextTower, params: Params, device: torch.device, checkpoint: Checkpoint = NOTHING_KEPT
) -> tuple[LearnedPrompts | None, Curves]:
    """Train the inversion networks and the identity tokens; then encode r~ of every identity once.

    Args:
        prompt_tower: M~_t, frozen.

    Returns:
        The prompts, or None if they are not enabled, and the loss curves.
    """
    curves, options = Curves([*ConstructLosses._fields, "total"]), params.active.construct_prompts
    if not params.prompt.enabled:
        return None, curves
    encoder = PromptEncoder(prompt_tower).to(device)
    prompts = LearnedPrompts(params.prompt, params.active.inversion, prompt_tower, cache.pids.tolist()).to(device)
    networks = [*prompts.image_inversion.parameters(), *prompts.text_inversion.parameters()]
    groups = [{"params": networks, "lr": options.inversion_lr}, {"params": [prompts.identity_tokens], "lr": options.identity_lr}]
    optimizer = torch.optim.Adam(groups)
    kept: dict[str, Stateful] = {"prompts": prompts, "optimizer": optimizer, "curves": curves}
    first_epoch, done = checkpoint.load(**kept)
    for epoch in range(first_epoch, options.epochs + 1):
        batches = shuffled_batches(len(cache.labels), options.batch_size, params.seed, epoch, drop_last=False)
        title = f"prompts {epoch}/{options.epochs}"
        progress = tqdm(batches[done:], initial=done, total=len(batches), desc=title, unit="steps")
        for number, rows in enumerate(progress, start=done):
            batch = cache.batch(rows, np.random.default_rng([params.seed, epoch, 1, number]), device)
            losses = construct_losses(prompts, encoder, batch, params.loss)
            numbers = check_finite(losses._asdict(), f"construct_prompts, epoch {epoch}, step {number + 1}")
            total = losses.t2i + losses.i2t + losses.ic
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            curves.add({**losses._asdict(), "total": total})
            progress.set_postfix({name: f"{value:.3f}" for name, value in numbers.items()}, refresh=False)
            if number + 1 < len(batches):
                checkpoint.save(epoch, number + 1, **kept)
        curves.end_epoch(epoch)
        for group in optimizer.param_groups:
            group["lr"] *= options.lr_decay
        checkpoint.save(epoch + 1, 0, **kept)
        done = 0
    with torch.no_grad():
        tables = [encoder.identity_prompt(tokens) for tokens in prompts.identity_tokens.split(1024)]
        prompts.identity_prompts.copy_(torch.cat(tables))
    return prompts.cpu(), curves


def construct_losses(prompts: LearnedPrompts, encoder: PromptEncoder, batch: CachedBatch, loss: Loss) -> ConstructLosses:
    """Compute L_t2i, L_i2t and L_ic of one batch; eq. 13 is their sum."""
    labels_B, num_captioned = batch.labels_B, len(batch.ends_T)
    image_features_BD = batch.image_tokens_BXD[:, _V_T2I]
    identity_BMW = prompts.identity_tokens[labels_B]
    image_prompts_BD = encoder.instance_prompt(identity_BMW, prompts.image_inversion(batch.image_tokens_BXD))
    if num_captioned:
        instance_TKW = prompts.text_inversion(batch.text_tokens_TLD, batch.ends_T)
        text_prompts_TD = encoder.instance_prompt(identity_BMW[:num_captioned], instance_TKW)
        text_features_TD = at_end(batch.text_tokens_TLD, batch.ends_T)
    else:
        text_prompts_TD = text_features_TD = image_features_BD[:0]
    present_P = labels_B.unique()
    prompts_PD = encoder.identity_prompt(prompts.identity_tokens[present_P])
    t2i, i2t = prompt_contrast_losses(image_features_BD, prompts_PD, labels_B, present_P, loss.prompt_temperature)
    consistency = instance_consistency_loss(
        image_prompts_BD, image_features_BD, text_prompts_TD, text_features_TD, loss.normalize_features
    )
    return ConstructLosses(t2i, i2t, consistency)
