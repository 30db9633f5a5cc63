"""Similarity distribution matching, part of eq. 2."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize


def similarity_distribution_loss(
    image_features_BD: Tensor, text_features_BD: Tensor, pids_B: Tensor, temperature: float = 0.02, epsilon: float = 1e-8
) -> Tensor:
    """Compute L_sdm: KL(softmax(cos / tau) || normalised same-identity matrix), text to image plus image to text.

    Source: Jiang & Ye, IRRA, CVPR 2023, eqs. 3-6; Zhou et al., AAAI 2026, eq. 2.

    Args:
        image_features_BD, text_features_BD: v_t2i and t_eos of B pairs, not normalised.
        pids_B: identity of each pair. Each pair matches at least itself.
        temperature: tau, 0.02.
        epsilon: added to the target distribution inside the logarithm, 1e-8 (IRRA). The loss is a reverse KL: log(epsilon) times
            every misplaced mass, so its gradient grows while the batch is half learnt.

    Returns:
        Scalar, the sum of both directions, each the mean over B. Zero for an empty batch.
    """
    if not len(pids_B):
        return (image_features_BD.sum() + text_features_BD.sum()) * 0.0
    cosines = normalize(text_features_BD.float(), dim=-1) @ normalize(image_features_BD.float(), dim=-1).T
    same = (pids_B[:, None] == pids_B[None, :]).to(cosines.dtype)
    log_target = torch.log(same / same.sum(dim=1, keepdim=True) + epsilon)
    loss = cosines.new_zeros(())
    for logits in (cosines / temperature, cosines.T / temperature):
        log_predicted = log_softmax(logits, dim=1)
        loss = loss + (log_predicted.exp() * (log_predicted - log_target)).sum(dim=1).mean()
    return loss
