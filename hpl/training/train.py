"""Stage II, representation learning: the whole loop on one page."""

import math
import sys

import numpy as np
import pandas as pd
import torch
from open_clip.model import CLIP
from tqdm import tqdm

from hpl.backbones.towers import compile_blocks
from hpl.batches.loading import Step, StepDataset, TrainingData, load_steps
from hpl.batches.sampling import identity_batches, shuffled_batches, spread_batches, takes_part
from hpl.config import Params
from hpl.files import HplError
from hpl.prompts.learned import LearnedPrompts
from hpl.retrieval.checks import refuse, training_faults
from hpl.retrieval.features import Extractor
from hpl.retrieval.figures import validate
from hpl.retrieval.sets import read_validation_sets
from hpl.runtime.checkpoint import NOTHING_KEPT, Checkpoint, Stateful
from hpl.runtime.curves import Curves, check_finite
from hpl.runtime.device import out_of_memory
from hpl.runtime.distributed import check_agreement, rank
from hpl.runtime.schedule import warmup_cosine
from hpl.tasks import I2I, T2I, TASKS
from hpl.training.diagnosis import FIGURES, collapse_of, diagnose
from hpl.training.model import CLASSIFIER_DEVIATION, HPL, LOSSES, Classifier
from hpl.training.optimizer import Optimizer
from hpl.training.selection import Best

_SMALLER = "lower train.t2i_batch and train.i2i_batch, or set train.micro_batch (same losses) or train.gradient_checkpointing"


@out_of_memory(_SMALLER)
def train(
    clip: CLIP,
    prompts: LearnedPrompts | None,
    data: TrainingData,
    params: Params,
    device: torch.device,
    checkpoint: Checkpoint = NOTHING_KEPT,
) -> tuple[HPL, Curves, dict]:
    """Minimise L_total (eq. 14). Returns the model, on the CPU, its curves, and which epoch it is of and why.

    The test split is never read. The model is that of the last epoch, or by `train.selection` of the best in validation.
    """
    options, size, manifests = params.active.train, params.active.input, data.manifests
    refuse(training_faults(params, manifests))
    pictures, captions = data.pictures("train"), data.captions("train")
    pids = np.unique(pictures["pid"])
    if prompts is not None and prompts.pids.tolist() != pids.tolist():
        raise HplError("train: the prompts were made for other training identities; run the construct_prompts stage again")
    reader = data.reader(pictures, size)
    held_out = read_validation_sets(manifests) if options.validate_epochs else []
    hpl, optimizer = start(clip, prompts, len(pids), params, device)
    best, curves = Best(options.selection, options.patience, params.tasks), Curves([*LOSSES, "total"], FIGURES)
    kept: dict[str, Stateful] = {"model": hpl, "optimizer": optimizer, "curves": curves, "best": best}
    (first_epoch, done), told = checkpoint.load(**kept), ""
    for epoch in range(first_epoch, options.epochs + 1):
        if best.waited_enough():
            break
        hpl.train()
        steps = epoch_steps(captions, _people(data), pids, params, epoch)
        rest = StepDataset(reader, captions["caption"], size.context_length, steps[done:], options.pad, options.erase_probability)
        loader, title = load_steps(rest, options.loader_workers, device), f"train {epoch}/{options.epochs}"
        progress = tqdm(loader, initial=done, total=len(steps), desc=title, unit="steps", disable=rank() > 0)
        for number, batch in enumerate(progress, start=done):
            time = epoch - 1 + number / len(steps)
            lr = warmup_cosine(time, options.epochs, options.warmup_epochs, options.start_lr, options.peak_lr)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.amp):
                losses, compared = hpl(batch, params.loss, params.tasks, options.micro_batch)
            numbers = check_finite(losses, f"train, epoch {epoch}, step {number + 1}")
            if options.diagnose_steps and curves.steps % options.diagnose_steps == 0:
                figures = diagnose(hpl, losses, compared)
                curves.note(figures)
                if not told and rank() == 0 and (told := collapse_of(figures)):
                    progress.write(f"train, epoch {epoch}, step {number + 1}: {told}", file=sys.stderr)
            optimizer.step(losses, lr)
            curves.add({**losses, "total": sum(losses.values())})
            progress.set_postfix({name: f"{value:.2f}" for name, value in numbers.items()}, refresh=False)
            if number + 1 < len(steps):
                checkpoint.save(epoch, number + 1, **kept)
        check_agreement(f"train, epoch {epoch}", hpl.parameters())
        figures = {}
        if held_out and (epoch % options.validate_epochs == 0 or epoch == options.epochs):
            batch_size = options.t2i_batch + options.i2i_batch
            extractor = Extractor(images=hpl.images, texts=hpl.texts, size=size, batch_size=batch_size, device=device)
            figures = validate(extractor, manifests, held_out)
            best.offer(epoch, figures, hpl)
        curves.end_epoch(epoch, lr=lr, **{f"val_{task}_mAP": figures.get(task, math.nan) for task in TASKS})
        checkpoint.save(epoch + 1, 0, **kept)
        done = 0
    return best.restore(hpl.cpu()).eval(), curves, best.account(len(curves.rows))


def start(
    clip: CLIP, prompts: LearnedPrompts | None, num_identities: int, params: Params, device: torch.device
) -> tuple[HPL, Optimizer]:
    """Build the model of stage II and its optimiser."""
    options = params.active.train
    hpl = HPL(clip, params.model, num_identities, prompts, params.seed).to(device)
    if prompts is not None and not options.train_inversion:
        prompts.requires_grad_(False)
    for module in hpl.modules():
        if isinstance(module, Classifier):
            module.weight.data *= options.classifier_deviation / CLASSIFIER_DEVIATION
    towers = [hpl.images.visual.transformer, hpl.texts.transformer]
    for tower in towers:
        tower.grad_checkpointing = options.gradient_checkpointing
    if options.compile:
        compile_blocks(towers, device)
    return hpl, Optimizer(hpl, options, params.tasks)


def _people(data: TrainingData) -> pd.DataFrame:
    """Select the training pictures of the data sets that serve I2I; of all data sets if none does."""
    pictures = data.pictures("train")
    people = pictures[pictures["dataset"].isin(data.manifests.serving(I2I.name, "train"))]
    return people if len(people) else pictures


def epoch_steps(captions: pd.DataFrame, pictures: pd.DataFrame, pids: np.ndarray, params: Params, epoch: int) -> list[Step]:
    """Compose each step: `t2i_batch` picture-caption pairs, then `i2i_batch` pictures, `num_instances` a person.

    An epoch is one pass over the captions, also where I2I alone is trained, so that one task takes as many steps as both; without
    captions it is one over the pictures. A half whose pace is below 1 is left out of the other steps.

    Args:
        captions: the training rows of the captions.
        pictures: those of the pictures that the I2I half is drawn from.
        pids: the training identities, sorted; a label is an index into them.
    """
    options, pairs, people = params.active.train, list[np.ndarray](), list[np.ndarray]()
    if T2I.name in params.tasks:
        pairs = shuffled_batches(len(captions), options.t2i_batch, params.seed, epoch, drop_last=True)
    count = math.ceil(round(len(pairs) / options.t2i_pace, 9))
    if I2I.name in params.tasks:
        count = count or len(captions) // options.t2i_batch or max(1, len(pictures) // options.i2i_batch)
        people = _people_batches(pictures, sum(takes_part(step, options.i2i_pace) for step in range(count)), params, epoch)
    caption_images, caption_pids, images, image_pids = (
        table[name].to_numpy() for table in (captions, pictures) for name in ("image_id", "pid")
    )
    none, steps, left_pairs, left_people = np.zeros(0, np.int64), [], iter(pairs), iter(people)
    for number in range(count):
        pair = next(left_pairs) if pairs and takes_part(number, options.t2i_pace) else none
        person = next(left_people) if people and takes_part(number, options.i2i_pace) else none
        labels = np.concatenate([caption_pids[pair], image_pids[person]])
        if len(labels):
            image_ids = np.concatenate([caption_images[pair], images[person]])
            seed = (params.seed * 1000 + epoch) * 10**6 + number
            steps.append(Step(image_ids, pair, np.searchsorted(pids, labels), seed=seed))
    return steps


def _people_batches(pictures: pd.DataFrame, count: int, params: Params, epoch: int) -> list[np.ndarray]:
    """Draw the I2I half of `count` steps, as rows of `pictures`."""
    options, seed, pids = params.active.train, params.seed, pictures["pid"].to_numpy()
    if options.sampler == "random":
        return identity_batches(pids, count, options.i2i_batch, options.num_instances, seed, epoch)
    rng = np.random.default_rng([seed, epoch, 1])
    return spread_batches(pids, pictures["camid"].to_numpy(), count, options.i2i_batch, options.num_instances, rng)
