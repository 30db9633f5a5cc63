"""Identity classification, parts of eq. 2."""

from torch import Tensor
from torch.nn.functional import cross_entropy


def t2i_identity_loss(image_logits_BN: Tensor, text_logits_BN: Tensor, labels_B: Tensor) -> Tensor:
    """Compute L_id_t2i: mean of the cross-entropies of v_t2i and t_eos under one shared linear classifier.

    Source: Jiang & Ye, IRRA, CVPR 2023; Zhou et al., AAAI 2026, eq. 2.

    Args:
        image_logits_BN, text_logits_BN: logits over the N training identities.
        labels_B: identity index in 0..N-1.

    Returns:
        Scalar; zero for an empty batch.
    """
    if not len(labels_B):
        return (image_logits_BN.sum() + text_logits_BN.sum()) * 0.0
    return (cross_entropy(image_logits_BN.float(), labels_B) + cross_entropy(text_logits_BN.float(), labels_B)) / 2


def i2i_identity_loss(logits_BN: Tensor, labels_B: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Compute L_id_i2i: cross-entropy with label smoothing of v_i2i, after its batch-norm neck and linear classifier.

    Source: Luo et al., Bag of Tricks, CVPRW 2019; Zhou et al., AAAI 2026, eq. 2.

    Args:
        logits_BN: logits over the N training identities.
        labels_B: identity index in 0..N-1.

    Returns:
        Scalar; zero for an empty batch.
    """
    if not len(labels_B):
        return logits_BN.sum() * 0.0
    return cross_entropy(logits_BN.float(), labels_B, label_smoothing=label_smoothing)
