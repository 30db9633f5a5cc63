"""Everything that takes part in stage II: two towers, their heads, and the prompt parts of stage I."""

from functools import partial

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from hpl.backbones.distributed import gather_shares, rank, share, world_size
from hpl.backbones.towers import ImageTower, TextTower, at_end, frozen_copy
from hpl.batches.loading import Batch
from hpl.config import Loss, Model
from hpl.losses.alignment import instance_alignment_losses, prompt_regularisation_loss
from hpl.losses.contrast import identity_prompt_loss
from hpl.losses.identity import i2i_identity_loss, t2i_identity_loss
from hpl.losses.sdm import similarity_distribution_loss
from hpl.losses.triplet import batch_hard_triplet_loss
from hpl.prompts.parts import PromptParts
from hpl.prompts.template import PromptEncoder

LOSSES = ["sdm", "id_t2i", "tri", "id_i2i", "cic", "tgps", "vgps", "cmpr"]  # the terms of eq. 14, by name
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

    def forward(self, batch: Batch, loss: Loss, tasks: list[str]) -> dict[str, Tensor]:
        """The weighted terms of L_total (eqs. 2, 10-12 and 14), by name; their sum is what is minimised.

        Several processes (hpl/backbones/distributed.py) each run the networks over their share of the batch; all compute the losses of
        the whole from gathered features.
        """
        tokens_BXD = self.images(batch.images_B3HW)
        exact = partial(torch.autocast, tokens_BXD.device.type, enabled=False)  # half precision is too coarse for cosines / 0.02
        num_captioned, labels_B = batch.num_captioned, batch.labels_B
        classes_BXD = gather_shares(tokens_BXD[:, :2], num_captioned, len(labels_B) - num_captioned)
        image_t2i_TD, labels_T = classes_BXD[:num_captioned, 0], labels_B[:num_captioned]
        losses = {}
        if "t2i" in tasks:
            text_tokens_TLD, ends_T = self.texts(batch.token_ids_TL)
            text_TD = gather_shares(at_end(text_tokens_TLD, ends_T), num_captioned)
            with exact():
                losses["sdm"] = similarity_distribution_loss(image_t2i_TD, text_TD, labels_T, loss.sdm_temperature)
            losses["id_t2i"] = t2i_identity_loss(self.t2i_classifier(image_t2i_TD), self.t2i_classifier(text_TD), labels_T)
        if "i2i" in tasks:
            seen = slice(0 if loss.i2i_batch == "all" or num_captioned == len(labels_B) else num_captioned, None)
            image_i2i_SD, labels_S = classes_BXD[seen, 1], labels_B[seen]
            with exact():
                losses["tri"] = batch_hard_triplet_loss(image_i2i_SD, labels_S, loss.triplet_margin)
            logits_SN = self.i2i_classifier(self.i2i_neck(image_i2i_SD))
            losses["id_i2i"] = i2i_identity_loss(logits_SN, labels_S, loss.label_smoothing)
            if self.parts is not None and loss.identity_prompt:
                with exact():
                    cic = identity_prompt_loss(image_i2i_SD, self.parts.identity_prompts, labels_S, loss.prompt_temperature)
                losses["cic"] = loss.identity_prompt * cic
        if self.parts is not None and "t2i" in tasks:
            losses |= self._instance_losses(tokens_BXD[: len(ends_T)], text_tokens_TLD, ends_T, text_TD, labels_T, loss)
        return losses

    def _instance_losses(
        self, image_tokens_TXD: Tensor, text_tokens_TLD: Tensor, ends_T: Tensor, text_TD: Tensor, labels_T: Tensor, loss: Loss
    ) -> dict[str, Tensor]:
        """lambda1 * L_ILPA (eq. 10) in its two halves and lambda2 * L_CMPR (eq. 12); what has no weight is not computed.

        Tokens and ends are those of this process, t_eos and labels those of the whole batch.
        """
        text_guided, vision_guided = loss.instance_align and loss.text_guided, loss.instance_align and loss.vision_guided
        if not (text_guided or vision_guided or loss.prompt_reg):
            return {}
        losses = {}

        def whole(own_T: Tensor) -> Tensor:
            return gather_shares(own_T, len(labels_T))

        image_t2i_TD = whole(image_tokens_TXD[:, 0])
        identity_TMW = self.parts.identity_tokens[labels_T[share(len(labels_T), rank(), world_size())]]
        if text_guided or loss.prompt_reg:
            text_instance_TKW = self.parts.text_inversion(text_tokens_TLD, ends_T)
        if vision_guided or loss.prompt_reg:
            image_instance_TKW = self.parts.image_inversion(image_tokens_TXD)
        text_prompts_TD, image_prompts_TD = image_t2i_TD.detach(), text_TD.detach()
        if text_guided:
            text_prompts_TD = whole(self.encoder.instance_prompt(identity_TMW, text_instance_TKW))
        if vision_guided:
            image_prompts_TD = whole(self.encoder.instance_prompt(identity_TMW, image_instance_TKW))
        tgps, vgps = instance_alignment_losses(image_prompts_TD, text_prompts_TD, image_t2i_TD, text_TD, loss.normalize_features)
        if text_guided:
            losses["tgps"] = loss.instance_align * tgps
        if vision_guided:
            losses["vgps"] = loss.instance_align * vgps
        if loss.prompt_reg:
            losses["cmpr"] = loss.prompt_reg * prompt_regularisation_loss(whole(text_instance_TKW), whole(image_instance_TKW))
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
