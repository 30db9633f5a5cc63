"""Identity prompts against pictures, eqs. 8 and 9 (stage I) and 11 (stage II)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize


def prompt_contrast_losses(
    image_features_BD: Tensor, prompt_features_PD: Tensor, pids_B: Tensor, prompt_pids_P: Tensor, temperature: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Compute L_t2i (eq. 8) and L_i2t (eq. 9): contrast v_t2i with the identity prompts r~_y over the batch, in both directions.

    A sample's log-probability is averaged over all its positives; samples of the same identity are positives, never negatives
    (Khosla et al., SupCon, 2020, as in CLIP-ReID). The P prompts are the distinct identities of the batch, each encoded once;
    over the batch they stand as often as their identity occurs: the softmax of eq. 9 and the mean of eq. 8 are weighted so.

    Args:
        image_features_BD: v_t2i.
        prompt_features_PD: r~ of the P distinct identities of the batch.
        pids_B, prompt_pids_P: identities of both; every identity of pids_B has its prompt.
        temperature: Decision `loss.prompt_temperature`.

    Returns:
        (L_t2i, L_i2t), scalars; zero for an empty batch.
    """
    if not len(pids_B):
        zero = (image_features_BD.sum() + prompt_features_PD.sum()) * 0.0
        return zero, zero
    images_BD, prompts_PD = normalize(image_features_BD.float(), dim=-1), normalize(prompt_features_PD.float(), dim=-1)
    logits_BP = images_BD @ prompts_PD.T / temperature
    same_BP = (pids_B[:, None] == prompt_pids_P[None, :]).to(logits_BP.dtype)
    count_P = same_BP.sum(dim=0)
    # eq. 8, a prompt over the pictures; the prompt of each sample counts, so prompt p stands count_P times
    text_to_image_P = -(same_BP * log_softmax(logits_BP, dim=0)).sum(dim=0) / count_P
    text_to_image = (text_to_image_P * count_P).sum() / len(pids_B)
    # eq. 9, a picture over the prompts of all samples: each copy of prompt p has the same logit, so log count_P joins the softmax
    log_copies_P = torch.log(count_P)
    log_each_BP = log_softmax(logits_BP + log_copies_P, dim=1) - log_copies_P
    image_to_text = -(same_BP * log_each_BP).sum(dim=1).mean()
    return text_to_image, image_to_text


def identity_prompt_loss(
    image_features_BD: Tensor, prompt_features_ND: Tensor, labels_B: Tensor, temperature: float = 0.02
) -> Tensor:
    """Compute L_cic (eq. 11): cross-entropy of cos(v_i2i, r~_j) / temperature over all N training identities.

    Args:
        image_features_BD: v_i2i.
        prompt_features_ND: the table r~, kept from stage I.
        labels_B: identity index in 0..N-1.
        temperature: Decision `loss.prompt_temperature`.

    Returns:
        Scalar; zero for an empty batch.
    """
    if not len(labels_B):
        return image_features_BD.sum() * 0.0
    cosines = normalize(image_features_BD.float(), dim=-1) @ normalize(prompt_features_ND.float(), dim=-1).T
    return cross_entropy(cosines / temperature, labels_B)
