"""Squared distances between prompts and features: eqs. 6, 10 and 12."""

from torch import Tensor
from torch.nn.functional import normalize


def mean_squared_distance(left_BD: Tensor, right_BD: Tensor, normalized: bool) -> Tensor:
    """Compute the mean over B of |left - right|^2, both sides L2-normalised first if `normalized`. Zero for an empty batch."""
    left_BD, right_BD = left_BD.float(), right_BD.float()
    if not len(left_BD):
        return (left_BD.sum() + right_BD.sum()) * 0.0
    if normalized:
        left_BD, right_BD = normalize(left_BD, dim=-1), normalize(right_BD, dim=-1)
    return (left_BD - right_BD).square().sum(dim=-1).mean()


def instance_consistency_loss(
    image_prompts_BD: Tensor,
    image_features_BD: Tensor,
    text_prompts_TD: Tensor,
    text_features_TD: Tensor,
    normalized: bool = True,
) -> Tensor:
    """Compute L_ic (eq. 6): mean over B of |v~_eos - v_t2i|^2 plus mean over B_t of |t~_eos - t_eos|^2.

    Args:
        image_prompts_BD, image_features_BD: v~_eos and v_t2i of the B pictures.
        text_prompts_TD, text_features_TD: t~_eos and t_eos of the T = B_t captioned ones.
        normalized: Decision `loss.normalize_features`.
    """
    return mean_squared_distance(image_prompts_BD, image_features_BD, normalized) + mean_squared_distance(
        text_prompts_TD, text_features_TD, normalized
    )


def instance_alignment_loss(prompts_TD: Tensor, features_TD: Tensor, normalized: bool = True) -> Tensor:
    """Compute half of L_ILPA (eq. 10), mean over B_t: L_tgps of t~_eos and v_t2i, or L_vgps of v~_eos and t_eos.

    `normalized` is the Decision `loss.normalize_features`. Zero without captions.
    """
    return mean_squared_distance(prompts_TD, features_TD, normalized)


def prompt_regularisation_loss(text_tokens_TKW: Tensor, image_tokens_TKW: Tensor) -> Tensor:
    """Compute L_CMPR (eq. 12): mean over B_t of |P_t - P_v|_F^2, the pseudo-tokens as they are. Zero without captions."""
    return mean_squared_distance(text_tokens_TKW.flatten(1), image_tokens_TKW.flatten(1), normalized=False)
