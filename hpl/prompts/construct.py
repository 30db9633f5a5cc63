"""Stage I, prompt construction: eqs. 6, 8, 9 and 13. The towers are frozen; their features come from the cache."""

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hpl.backbones.towers import TextTower, at_end
from hpl.batches.sampling import shuffled_batches
from hpl.config import Construct, Inversion, Loss, Prompt
from hpl.losses.alignment import instance_consistency_loss
from hpl.losses.contrast import prompt_contrast_losses
from hpl.prompts.features import FeatureCache
from hpl.prompts.parts import PromptParts
from hpl.prompts.template import PromptEncoder
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.runtime.curves import Curves, check_finite

V_T2I = 0  # place of v_t2i in F_v
LOSSES = ["t2i", "i2t", "ic", "total"]  # columns of the curves


def construct_prompts(
    cache: FeatureCache,
    prompt_tower: TextTower,
    prompt: Prompt,
    inversion: Inversion,
    loss: Loss,
    options: Construct,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> tuple[PromptParts | None, Curves]:
    """Train the inversion networks and the identity tokens; then encode r~ of every identity once.

    Args:
        prompt_tower: M~_t, frozen.

    Returns:
        The parts, or None if prompts are not enabled, and the loss curves.
    """
    if not prompt.enabled:
        return None, Curves(LOSSES)
    pids, labels = np.unique(cache.pictures["pid"], return_inverse=True)
    encoder = PromptEncoder(prompt_tower).to(device)
    parts = PromptParts(prompt, inversion, prompt_tower, pids.tolist()).to(device)
    networks = [*parts.image_inversion.parameters(), *parts.text_inversion.parameters()]
    groups = [{"params": networks, "lr": options.inversion_lr}, {"params": [parts.identity_tokens], "lr": options.identity_lr}]
    optimizer = torch.optim.Adam(groups)
    curves = Curves(LOSSES)
    kept = {"parts": parts, "optimizer": optimizer, "curves": curves}
    first_epoch, done = checkpoint.load(**kept)
    for epoch in range(first_epoch, options.epochs + 1):
        batches = shuffled_batches(len(labels), options.batch_size, seed, epoch, drop_last=False)
        title = f"prompts {epoch}/{options.epochs}"
        progress = tqdm(batches[done:], initial=done, total=len(batches), desc=title, unit="steps")
        for number, rows in enumerate(progress, start=done):
            captions = cache.captions_of(rows, np.random.default_rng([seed, epoch, 1, number]))
            order = np.argsort(captions < 0, kind="stable")  # captioned pictures first
            rows, captions = rows[order], captions[captions >= 0]
            text_TLD, ends_T = cache.text_batch(captions)
            losses = construct_losses(
                parts,
                encoder,
                cache.image_batch(rows).to(device),
                text_TLD.to(device),
                ends_T.to(device),
                torch.from_numpy(labels[rows]).to(device),
                loss,
            )
            numbers = check_finite(losses, f"construct_prompts, epoch {epoch}, step {number + 1}")
            total = sum(losses.values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            curves.add({**losses, "total": total})
            progress.set_postfix({name: f"{value:.3f}" for name, value in numbers.items()}, refresh=False)
            if number + 1 < len(batches):
                checkpoint.save(epoch, number + 1, **kept)
        curves.end_epoch(epoch)
        for group in optimizer.param_groups:
            group["lr"] *= options.lr_decay
        checkpoint.save(epoch + 1, 0, **kept)
        done = 0
    with torch.no_grad():
        tables = [encoder.identity_prompt(tokens) for tokens in parts.identity_tokens.split(1024)]
        parts.identity_prompts.copy_(torch.cat(tables))
    return parts.cpu(), curves


def construct_losses(
    parts: PromptParts,
    encoder: PromptEncoder,
    image_tokens_BXD: Tensor,
    text_tokens_TLD: Tensor,
    ends_T: Tensor,
    labels_B: Tensor,
    loss: Loss,
) -> dict[str, Tensor]:
    """L_t2i, L_i2t and L_ic of one batch (eq. 13 is their sum). The first T pictures are the captioned ones."""
    num_captioned = len(ends_T)
    image_features_BD = image_tokens_BXD[:, V_T2I]
    identity_BMW = parts.identity_tokens[labels_B]
    image_prompts_BD = encoder.instance_prompt(identity_BMW, parts.image_inversion(image_tokens_BXD))
    if num_captioned:
        instance_TKW = parts.text_inversion(text_tokens_TLD, ends_T)
        text_prompts_TD = encoder.instance_prompt(identity_BMW[:num_captioned], instance_TKW)
        text_features_TD = at_end(text_tokens_TLD, ends_T)
    else:
        text_prompts_TD = text_features_TD = image_features_BD[:0]
    present_P = labels_B.unique()
    t2i, i2t = prompt_contrast_losses(
        image_features_BD, encoder.identity_prompt(parts.identity_tokens[present_P]), labels_B, present_P, loss.prompt_temperature
    )
    consistency = instance_consistency_loss(
        image_prompts_BD, image_features_BD, text_prompts_TD, text_features_TD, loss.normalize_features
    )
    return {"t2i": t2i, "i2t": i2t, "ic": consistency}
