"""Everything that takes part in stage II: two towers, their heads, and the prompts of stage I. TERMS lists the terms of eq. 14.

Shapes: B pictures, the first T of which have a caption; S pictures that the I2I losses see; D joint width; M identity tokens and
K instance tokens of the width W; X visual tokens; L text tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpl.backbones.towers import ImageTower, TextTower, at_end, end_positions, frozen_copy
from hpl.batches.loading import Batch
from hpl.config import Loss, Model
from hpl.losses.alignment import instance_alignment_loss, prompt_regularisation_loss
from hpl.losses.contrast import identity_prompt_loss
from hpl.losses.identity import i2i_identity_loss, t2i_identity_loss
from hpl.losses.sdm import similarity_distribution_loss
from hpl.losses.triplet import metric_loss
from hpl.prompts.learned import LearnedPrompts
from hpl.prompts.template import PromptEncoder
from hpl.runtime.distributed import gather_shares, rank, share_of_rows, world_size
from hpl.tasks import I2I, T2I, Task

CLASSIFIER_DEVIATION = 0.001  # of fresh classifier weights (IRRA, Bag of Tricks)
_CAPTION_CHUNKS = 2  # shorter and longer captions of a batch run one after the other

# What a feature has a row for; gathering goes by it. A tensor, or None: no loss of this run reads the feature.
OfPictures = Annotated[Any, "B rows"]
OfCaptions = Annotated[Any, "T rows"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the losses compare, each row from one picture or one caption alone."""

    classes_BXD: OfPictures = None  # v_t2i and v_i2i
    text_TD: OfCaptions = None  # t_eos
    image_instance_TKW: OfCaptions = None  # P_v
    text_instance_TKW: OfCaptions = None  # P_t
    image_prompts_TD: OfCaptions = None  # v~_eos
    text_prompts_TD: OfCaptions = None  # t~_eos

    def map(self, change: Callable[[Tensor, object], Tensor]) -> "Features":
        """Change each feature that there is, given with its type."""
        own = {field: getattr(self, field.name) for field in fields(self)}
        return Features(**{field.name: change(rows, field.type) for field, rows in own.items() if rows is not None})

    @staticmethod
    def join(chunks: list["Features"]) -> "Features":
        """Put the rows of each feature one after the other."""
        columns = {field.name: [getattr(chunk, field.name) for chunk in chunks] for field in fields(Features)}
        columns = {name: [rows for rows in column if rows is not None] for name, column in columns.items()}
        return Features(**{name: torch.cat(column) for name, column in columns.items() if column})

    def gather(self, num_captioned: int, num_others: int) -> "Features":
        """Put the features of the whole batch on every process."""
        counts: dict[object, tuple[int, ...]] = {OfPictures: (num_captioned, num_others), OfCaptions: (num_captioned,)}
        return self.map(lambda own, kind: gather_shares(own, *counts[kind]))


@dataclass(frozen=True, kw_only=True)
class Compared(Features):
    """A whole batch as the terms of eq. 14 see it; of the pictures, those of each task."""

    v_t2i_TD: Tensor
    v_i2i_SD: Tensor
    labels_T: Tensor
    labels_S: Tensor
    loss: Loss


class Head:
    """A module that starts from nothing, learns at a rate of its own, and computes in the precision of its weights."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows.to(self.weight.dtype))  # type: ignore[misc,attr-defined]


class Classifier(Head, nn.Linear):
    """Linear classifier over the training identities."""


class Neck(Head, nn.BatchNorm1d):
    """Batch norm before a classifier (Bag of Tricks)."""


class HPL(nn.Module):
    """M_v and M_t, the heads of L_base (eq. 2), and, with prompts, M~_t, I_v, I_t and id_y."""

    def __init__(self, clip: CLIP, model: Model, num_identities: int, prompts: LearnedPrompts | None, seed: int) -> None:
        super().__init__()
        width = clip.text_projection.shape[1]
        self.encoder = PromptEncoder(frozen_copy(TextTower(clip))) if prompts is not None else None
        self.images = ImageTower(clip, **model.model_dump(), seed=seed)
        self.texts = TextTower(clip)
        self.prompts = prompts
        if prompts is not None:
            prompts.identity_tokens.requires_grad_(False)  # r~ is kept from stage I, so are the tokens it came from
        torch.manual_seed(seed)  # the same heads with and without prompts, so that an ablation changes one thing
        self.t2i_classifier = Classifier(width, num_identities)
        self.i2i_neck = Neck(width)
        self.i2i_neck.bias.requires_grad_(False)
        self.i2i_classifier = Classifier(width, num_identities, bias=False)
        for classifier in (self.t2i_classifier, self.i2i_classifier):
            nn.init.normal_(classifier.weight, std=CLASSIFIER_DEVIATION)
        nn.init.zeros_(self.t2i_classifier.bias)

    def forward(
        self, batch: Batch, loss: Loss, tasks: list[str], micro_batch: int | None = None
    ) -> tuple[dict[str, Tensor], Compared]:
        """Compute the weighted terms of L_total (eqs. 2, 10-12 and 14), by name; their sum is what is minimised.

        Returns the terms, and what they compare.

        Several processes (hpl/runtime/distributed.py) each run the networks over their share of the batch; all compute the losses
        of the whole from gathered features. With `micro_batch` the networks take so many pictures or captions at a time, once
        more in the backward; losses and gradients stay those of the whole batch.
        """
        if not batch.num_captioned:  # a step whose T2I half is left out
            tasks = [task for task in tasks if task != T2I.name]
        known = {name: term for name, term in TERMS.items() if self.prompts is not None or not term.of_prompts}
        weights = {name: term.weight(loss) for name, term in known.items() if term.task.name in tasks and term.weight(loss)}
        captioned, count = batch.num_captioned, len(batch.labels_B)
        whole = self._features(batch, T2I.name in tasks, weights, micro_batch).gather(captioned, count - captioned)
        first = 0 if loss.i2i_batch == "all" or captioned == count else captioned  # of the pictures that I2I sees
        vectors = {"v_t2i_TD": whole.classes_BXD[:captioned, 0], "v_i2i_SD": whole.classes_BXD[first:, 1]}
        labels = {"labels_T": batch.labels_B[:captioned], "labels_S": batch.labels_B[first:]}
        x = Compared(**vars(whole), **vectors, **labels, loss=loss)
        return {name: weight * TERMS[name].compute(self, x) for name, weight in weights.items()}, x

    def _features(self, batch: Batch, with_text: bool, weights: dict[str, float], micro_batch: int | None) -> Features:
        """Run the networks over the rows of this process, and no more of them than is compared."""
        labels_T = batch.labels_B[share_of_rows([batch.num_captioned], rank(), world_size()).to(batch.labels_B.device)]
        identity_T = self.prompts.identity_tokens[labels_T] if self.prompts is not None and with_text else labels_T
        found, captioned, rest = [], batch.images_B3HW[: len(labels_T)], batch.images_B3HW[len(labels_T) :]
        if "vgps" in weights or "cmpr" in weights:
            found.append(in_chunks(partial(self._captioned_pictures, weights), micro_batch, captioned, identity_T))
        elif len(captioned):  # apart from the rest, so that a backward of the T2I terms alone passes no other pictures
            found.append(in_chunks(self._plain_pictures, micro_batch, captioned))
        if len(rest):
            found.append(in_chunks(self._plain_pictures, micro_batch, rest))
        if with_text:
            ends_T = end_positions(batch.token_ids_TL)
            order_T = ends_T.argsort(stable=True)  # short captions together, cut at their own longest
            sorted_T = self.texts.token_embedding(batch.token_ids_TL[order_T]), ends_T[order_T], identity_T[order_T]
            captions = in_chunks(partial(self._captions, weights), micro_batch, *sorted_T, num_chunks=_CAPTION_CHUNKS)
            found.append(captions.map(lambda rows, _: rows[order_T.argsort()]))
        return Features.join(found)

    def _captioned_pictures(self, weights: dict[str, float], images_T3HW: Tensor, identity_TMW: Tensor) -> Features:
        assert self.prompts is not None and self.encoder is not None  # for a term of prompts asks
        tokens_TXD = self.images(images_T3HW)
        classes_T2D, instance_TKW = tokens_TXD[:, :2], self.prompts.image_inversion(tokens_TXD)
        prompts_TD = self.encoder.instance_prompt(identity_TMW, instance_TKW) if "vgps" in weights else None
        return Features(classes_BXD=classes_T2D, image_instance_TKW=instance_TKW, image_prompts_TD=prompts_TD)

    def _plain_pictures(self, images_B3HW: Tensor) -> Features:
        return Features(classes_BXD=self.images.classes(images_B3HW))

    def _captions(self, weights: dict[str, float], embeddings_TLW: Tensor, ends_T: Tensor, identity_TMW: Tensor) -> Features:
        tokens_TLD = self.texts.encode(embeddings_TLW[:, : int(ends_T.max()) + 1])
        text_TD, inverted = at_end(tokens_TLD, ends_T), "tgps" in weights or "cmpr" in weights
        instance_TKW: OfCaptions = self.prompts.text_inversion(tokens_TLD, ends_T) if self.prompts and inverted else None
        prompts_TD = self.encoder.instance_prompt(identity_TMW, instance_TKW) if self.encoder and "tgps" in weights else None
        return Features(text_TD=text_TD, text_instance_TKW=instance_TKW, text_prompts_TD=prompts_TD)


@dataclass(frozen=True)
class Term:
    """A term of eq. 14, which is there if its task is trained.

    Attributes:
        weight: its weight; 0 leaves it out, and what it alone would compare is not computed.
        of_prompts: it needs those of stage I, and is left out without them.
    """

    task: Task
    value: Callable[[HPL, Compared], Tensor]
    weight: Callable[[Loss], float]
    of_prompts: bool = False

    def compute(self, hpl: HPL, x: Compared) -> Tensor:
        """Compare the features of a batch, in float32: half precision is too coarse for cosines / 0.02 and for logits."""
        with torch.autocast(x.labels_T.device.type, enabled=False):
            return self.value(hpl, x)


_of_prompts = partial(Term, of_prompts=True)
# L_total, term by term: those of eq. 2, then eqs. 11, 10 in its halves, and 12.
TERMS = {
    "sdm": Term(
        T2I,
        lambda hpl, x: similarity_distribution_loss(
            x.v_t2i_TD, x.text_TD, x.labels_T, x.loss.sdm_temperature, x.loss.sdm_epsilon
        ),
        lambda loss: loss.sdm_weight,
    ),
    "id_t2i": Term(
        T2I,
        lambda hpl, x: t2i_identity_loss(hpl.t2i_classifier(x.v_t2i_TD), hpl.t2i_classifier(x.text_TD), x.labels_T),
        lambda loss: loss.t2i_identity_weight,
    ),
    "tri": Term(I2I, lambda hpl, x: metric_loss(x.v_i2i_SD, x.labels_S, x.loss), lambda loss: loss.triplet_weight),
    "id_i2i": Term(
        I2I,
        lambda hpl, x: i2i_identity_loss(hpl.i2i_classifier(hpl.i2i_neck(x.v_i2i_SD)), x.labels_S, x.loss.label_smoothing),
        lambda loss: loss.i2i_identity_weight,
    ),
    "cic": _of_prompts(
        I2I,
        lambda hpl, x: identity_prompt_loss(
            x.v_i2i_SD, hpl.get_buffer("prompts.identity_prompts"), x.labels_S, x.loss.prompt_temperature
        ),
        lambda loss: loss.identity_prompt,
    ),
    "tgps": _of_prompts(
        T2I,
        lambda hpl, x: instance_alignment_loss(x.text_prompts_TD, x.v_t2i_TD, x.loss.normalize_features),
        lambda loss: loss.instance_align * loss.text_guided,
    ),
    "vgps": _of_prompts(
        T2I,
        lambda hpl, x: instance_alignment_loss(x.image_prompts_TD, x.text_TD, x.loss.normalize_features),
        lambda loss: loss.instance_align * loss.vision_guided,
    ),
    "cmpr": _of_prompts(
        T2I, lambda hpl, x: prompt_regularisation_loss(x.text_instance_TKW, x.image_instance_TKW), lambda loss: loss.prompt_reg
    ),
}
LOSSES = list(TERMS)


def in_chunks(encode: Callable[..., Features], micro_batch: int | None, *rows: Tensor, num_chunks: int = 1) -> Features:
    """Compute `encode(*rows)` `micro_batch` rows at a time; each row of a feature comes from the same row of the arguments alone.

    A micro-batch keeps nothing for the backward, which runs it once more: so memory holds one's activations, and the loss is
    still that of all rows (GradCache, Gao et al., RepL4NLP 2021). With None, `num_chunks` chunks that keep theirs.
    """

    def run(*chunk: Tensor) -> Features:
        if micro_batch is None:
            return encode(*chunk)
        return checkpoint(encode, *chunk, use_reentrant=False, preserve_rng_state=False)  # nothing in it is random

    size = micro_batch or -(-len(rows[0]) // num_chunks)
    return Features.join([run(*chunk) for chunk in zip(*(each.split(size) for each in rows), strict=True)])
