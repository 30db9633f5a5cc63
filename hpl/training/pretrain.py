"""Contrastive (CLIP) training of a backbone on pictures with captions of people who occur in no test set."""

import numpy as np
import torch
from open_clip import ClipLoss
from open_clip.model import CLIP
from tqdm import tqdm

from hpl.backbones.towers import ImageTower, TextTower, at_end
from hpl.batches.loading import Step, StepDataset, TrainingData, load_steps
from hpl.batches.sampling import shuffled_batches
from hpl.config import Params, Pretrain
from hpl.files import HplError
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint
from hpl.runtime.curves import Curves, check_finite
from hpl.runtime.device import out_of_memory
from hpl.runtime.distributed import average_gradients, check_agreement, gather_shares, rank
from hpl.runtime.schedule import warmup_cosine

_PAD, _ERASE = 4, 0.0  # a captioned thing must not be erased
_MAX_LOGIT_SCALE = float(np.log(100))  # CLIP's bound


@out_of_memory("lower pretrain.batch_size")
def pretrain(
    model: CLIP, data: TrainingData, params: Params, device: torch.device, checkpoint: Checkpoint = NOTHING_KEPT
) -> Curves:
    """Train `model` in place with the symmetric InfoNCE loss over the pretraining captions.

    Captions of a picture are pairs of their own; pairs of one batch are negatives of each other (Radford et al., 2021).
    """
    options, size, curves, contrast = params.active.pretrain, params.active.input, Curves(["contrast"]), ClipLoss()
    if not options.epochs:
        return curves
    captions = data.captions("pretrain")
    if captions.empty:
        raise HplError("pretrain: no caption is left; expected people of no test set in a data set with use: [pretrain]")
    reader, image_ids = data.reader(data.pictures("pretrain"), size), captions["image_id"].to_numpy()
    images, texts = ImageTower(model, task_routing=False).to(device).train(), TextTower(model).to(device).train()
    optimizer = _optimizer(model.to(device), options)
    kept = {"model": model, "optimizer": optimizer, "curves": curves}
    first_epoch, done = checkpoint.load(**kept)
    for epoch in range(first_epoch, options.epochs + 1):
        batches = shuffled_batches(len(captions), options.batch_size, params.seed, epoch, drop_last=True)
        first_seed = (params.seed * 1000 + epoch) * 10**6
        steps = [Step(image_ids[rows], rows, np.zeros(len(rows), np.int64), first_seed + n) for n, rows in enumerate(batches)]
        pairs = StepDataset(reader, captions["caption"], size.context_length, steps[done:], _PAD, _ERASE)
        loader, title = load_steps(pairs, options.loader_workers, device), f"pretrain {epoch}/{options.epochs}"
        progress = tqdm(loader, initial=done, total=len(steps), desc=title, unit="steps", disable=rank() > 0)
        for number, batch in enumerate(progress, start=done):
            lr = warmup_cosine(epoch - 1 + number / len(steps), options.epochs, options.warmup_epochs, 0.0, options.lr)
            for group in optimizer.param_groups:
                group["lr"] = lr
            image_features = torch.nn.functional.normalize(images.classes(batch.images_B3HW)[:, 0], dim=-1)
            text_features = torch.nn.functional.normalize(at_end(*texts(batch.token_ids_TL)), dim=-1)
            pairs_of_all = (gather_shares(features, batch.num_captioned) for features in (image_features, text_features))
            losses = {"contrast": contrast(*pairs_of_all, model.logit_scale.exp())}
            numbers = check_finite(losses, f"pretrain, epoch {epoch}, step {number + 1}")
            optimizer.zero_grad()
            losses["contrast"].backward()
            average_gradients(model.parameters())
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
            curves.add(losses)
            progress.set_postfix(contrast=f"{numbers['contrast']:.3f}", refresh=False)
            if number + 1 < len(steps):
                checkpoint.save(epoch, number + 1, **kept)
        check_agreement(f"pretrain, epoch {epoch}", model.parameters())
        curves.end_epoch(epoch)
        checkpoint.save(epoch + 1, 0, **kept)
        done = 0
    model.cpu().eval()
    return curves


def _optimizer(model: CLIP, options: Pretrain) -> torch.optim.Optimizer:
    """Make AdamW with CLIP's betas, whose decay is for matrices alone."""
    decayed = {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": options.weight_decay}
    others = {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([decayed, others], lr=options.lr, betas=(0.9, 0.98), fused=True)
