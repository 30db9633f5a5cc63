"""Everything that takes part in stage II: two towers, their heads, and the prompt parts of stage I."""

from collections.abc import Callable
from functools import partial

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpl.backbones.towers import ImageTower, TextTower, at_end, end_positions, frozen_copy
from hpl.batches.loading import Batch
from hpl.config import Loss, Model
from hpl.losses.alignment import instance_alignment_losses, prompt_regularisation_loss
from hpl.losses.contrast import identity_prompt_loss
from hpl.losses.identity import i2i_identity_loss, t2i_identity_loss
from hpl.losses.sdm import similarity_distribution_loss
from hpl.losses.triplet import batch_hard_triplet_loss
from hpl.prompts.parts import PromptParts
from hpl.prompts.template import PromptEncoder
from hpl.runtime.distributed import gather_shares, rank, share_of_parts, world_size

LOSSES = ["sdm", "id_t2i", "tri", "id_i2i", "cic", "tgps", "vgps", "cmpr"]  # the terms of eq. 14, by name
CAPTION_PARTS = 2  # shorter and longer captions of a batch run one after the other
CLASSIFIER_DEVIATION = 0.001  # of fresh classifier weights (IRRA, Bag of Tricks)


class HPL(nn.Module):
    """M_v and M_t, the heads of L_base (eq. 2), and, with prompts, M~_t, I_v, I_t and id_y."""

    def __init__(self, clip: CLIP, model: Model, num_identities: int, parts: PromptParts | None, seed: int) -> None:
        super().__init__()
        width = clip.text_projection.shape[1]
        self.encoder = PromptEncoder(frozen_copy(TextTower(clip))) if parts is not None else None
        self.images = ImageTower(clip, **model.model_dump(), seed=seed)
        self.texts = TextTower(clip)
        self.parts = parts
        if parts is not None:
            parts.identity_tokens.requires_grad_(False)  # r~ is kept from stage I, so are the tokens it came from
        torch.manual_seed(seed)  # the same heads with and without prompts, so that an ablation changes one thing
        self.t2i_classifier = nn.Linear(width, num_identities)
        self.i2i_neck = nn.BatchNorm1d(width)
        self.i2i_neck.bias.requires_grad_(False)
        self.i2i_classifier = nn.Linear(width, num_identities, bias=False)
        for classifier in (self.t2i_classifier, self.i2i_classifier):
            nn.init.normal_(classifier.weight, std=CLASSIFIER_DEVIATION)
        nn.init.zeros_(self.t2i_classifier.bias)

    def forward(self, batch: Batch, loss: Loss, tasks: list[str], micro_batch: int | None = None) -> dict[str, Tensor]:
        """The weighted terms of L_total (eqs. 2, 10-12 and 14), by name; their sum is what is minimised.

        Several processes (hpl/runtime/distributed.py) each run the networks over their share of the batch; all compute the losses of
        the whole from gathered features. With `micro_batch` the networks take so many pictures or captions at a time, once more in the
        backward; losses and gradients stay those of the whole batch.
        """
        features = self._features(batch, loss, tasks, micro_batch)
        exact = partial(
            torch.autocast, batch.labels_B.device.type, enabled=False
        )  # half precision is too coarse for cosines / 0.02
        num_captioned, labels_B = batch.num_captioned, batch.labels_B
        classes_BXD = gather_shares(features["classes"], num_captioned, len(labels_B) - num_captioned)
        image_t2i_TD, labels_T = classes_BXD[:num_captioned, 0], labels_B[:num_captioned]
        losses = {}
        if "t2i" in tasks:
            text_TD = gather_shares(features["text"], num_captioned)
            with exact():
                losses["sdm"] = similarity_distribution_loss(image_t2i_TD, text_TD, labels_T, loss.sdm_temperature)
            losses["id_t2i"] = t2i_identity_loss(self.t2i_classifier(image_t2i_TD), self.t2i_classifier(text_TD), labels_T)
        if "i2i" in tasks:
            seen = slice(0 if loss.i2i_batch == "all" or num_captioned == len(labels_B) else num_captioned, None)
            image_i2i_SD, labels_S = classes_BXD[seen, 1], labels_B[seen]
            with exact():
                losses["tri"] = batch_hard_triplet_loss(image_i2i_SD, labels_S, loss.triplet_margin, loss.normalize_triplet)
            logits_SN = self.i2i_classifier(self.i2i_neck(image_i2i_SD))
            losses["id_i2i"] = i2i_identity_loss(logits_SN, labels_S, loss.label_smoothing)
            if self.parts is not None and loss.identity_prompt:
                with exact():
                    cic = identity_prompt_loss(image_i2i_SD, self.parts.identity_prompts, labels_S, loss.prompt_temperature)
                losses["cic"] = loss.identity_prompt * cic
        if self.parts is not None and "t2i" in tasks:
            losses |= self._instance_losses(features, image_t2i_TD, text_TD, loss)
        return losses

    def _features(self, batch: Batch, loss: Loss, tasks: list[str], micro_batch: int | None) -> dict[str, Tensor]:
        """What the losses compare, each row from one picture or one caption alone; of this process, and no more than is compared.

        classes B x 2 x D; text T x D; and, of the captioned, image_instance and text_instance (P_v and P_t) T x K x W, image_prompts
        and text_prompts (v~_eos and t~_eos) T x D.
        """
        instances = self.parts is not None and "t2i" in tasks
        text_guided, vision_guided = (
            bool(instances and loss.instance_align and guided) for guided in (loss.text_guided, loss.vision_guided)
        )
        regularised = bool(instances and loss.prompt_reg)
        labels_T = batch.labels_B[share_of_parts([batch.num_captioned], rank(), world_size()).to(batch.labels_B.device)]
        identity_T = self.parts.identity_tokens[labels_T] if instances else labels_T  # labels alone are not read

        def captions(embeddings_TLW: Tensor, ends_T: Tensor, identity_TMW: Tensor) -> dict[str, Tensor]:
            tokens_TLD = self.texts.encode(embeddings_TLW[:, : int(ends_T.max()) + 1])
            found = {"text": at_end(tokens_TLD, ends_T)}
            if text_guided or regularised:
                found["text_instance"] = self.parts.text_inversion(tokens_TLD, ends_T)
            if text_guided:
                found["text_prompts"] = self.encoder.instance_prompt(identity_TMW, found["text_instance"])
            return found

        def captioned_pictures(images_T3HW: Tensor, identity_TMW: Tensor) -> dict[str, Tensor]:
            tokens_TXD = self.images(images_T3HW)
            found = {"classes": tokens_TXD[:, :2], "image_instance": self.parts.image_inversion(tokens_TXD)}
            if vision_guided:
                found["image_prompts"] = self.encoder.instance_prompt(identity_TMW, found["image_instance"])
            return found

        def other_pictures(images_B3HW: Tensor) -> dict[str, Tensor]:
            return {"classes": self.images.classes(images_B3HW)}

        features, rest = {}, batch.images_B3HW
        if vision_guided or regularised:
            features |= in_parts(captioned_pictures, micro_batch, rest[: len(labels_T)], identity_T)
            rest = rest[len(labels_T) :]
        if len(rest):
            others = in_parts(other_pictures, micro_batch, rest)["classes"]
            features["classes"] = torch.cat([features["classes"], others]) if "classes" in features else others
        if "t2i" in tasks:
            ends_T = end_positions(batch.token_ids_TL)
            order_T = ends_T.argsort(stable=True)  # short captions together, cut at their own longest
            sorted_T = self.texts.token_embedding(batch.token_ids_TL[order_T]), ends_T[order_T], identity_T[order_T]
            found = in_parts(captions, micro_batch, *sorted_T, num_parts=CAPTION_PARTS)
            features |= {name: rows[order_T.argsort()] for name, rows in found.items()}
        return features

    def _instance_losses(
        self, features: dict[str, Tensor], image_t2i_TD: Tensor, text_TD: Tensor, loss: Loss
    ) -> dict[str, Tensor]:
        """lambda1 * L_ILPA (eq. 10) in its two halves and lambda2 * L_CMPR (eq. 12), of the whole batch; what has no weight is left out."""
        whole = {
            name: gather_shares(own_T, len(text_TD)) for name, own_T in features.items() if name.startswith(("image", "text_"))
        }
        losses = {}
        text_prompts_TD = whole.get("text_prompts", image_t2i_TD.detach())
        image_prompts_TD = whole.get("image_prompts", text_TD.detach())
        tgps, vgps = instance_alignment_losses(image_prompts_TD, text_prompts_TD, image_t2i_TD, text_TD, loss.normalize_features)
        if "text_prompts" in whole:
            losses["tgps"] = loss.instance_align * tgps
        if "image_prompts" in whole:
            losses["vgps"] = loss.instance_align * vgps
        if loss.prompt_reg:
            losses["cmpr"] = loss.prompt_reg * prompt_regularisation_loss(whole["text_instance"], whole["image_instance"])
        return losses

    def parameter_groups(self, new_lr_factor: float, train_inversion: bool) -> list[dict]:
        """What learns in stage II, with `lr_factor` for each group: towers and inversion networks 1, heads and the new token another."""
        if self.parts is not None and not train_inversion:
            self.parts.requires_grad_(False)
        towers, new = [], []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_new = name.startswith(("t2i_classifier", "i2i_")) or name in ("images.i2i_token", "images.i2i_position")
                (new if is_new else towers).append(parameter)
        return [{"params": towers, "lr_factor": 1.0}, {"params": new, "lr_factor": new_lr_factor}]


def in_parts(
    encode: Callable[..., dict[str, Tensor]], micro_batch: int | None, *rows: Tensor, num_parts: int = 1
) -> dict[str, Tensor]:
    """`encode(*rows)`, computed `micro_batch` rows at a time; each row of a result comes from the same row of the arguments alone.

    A micro-batch keeps nothing for the backward, which runs it once more: so memory holds one's activations, and the loss is still that
    of all rows (GradCache, Gao et al., RepL4NLP 2021). With None, `num_parts` parts that keep theirs.
    """

    def run(*part: Tensor) -> dict[str, Tensor]:
        if micro_batch is None:
            return encode(*part)
        return checkpoint(encode, *part, use_reentrant=False, preserve_rng_state=False)  # nothing in it is random

    size = micro_batch or -(-len(rows[0]) // num_parts)
    parts = [run(*part) for part in zip(*(each.split(size) for each in rows), strict=True)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
