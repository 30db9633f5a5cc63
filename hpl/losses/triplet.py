"""Batch-hard triplet, part of eq. 2, and what may stand in its place. Mining and losses are pytorch-metric-learning's."""

from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import SupConLoss, TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from hpl.config import Loss


def metric_loss(features_BD: Tensor, pids_B: Tensor, loss: Loss) -> Tensor:
    """Compute the loss that `loss.triplet` names on v_i2i, B x D: L_tri in one of its two forms, or SupCon in its place.

    SupCon: for each anchor the mean over its positives of the cross-entropy of cos / tau among all others, an anchor without a
    positive left out. Source: Khosla et al., NeurIPS 2020, eq. 2.
    """
    if loss.triplet == "supcon":
        own = SupConLoss(temperature=loss.supcon_temperature, distance=CosineSimilarity())
        return own(features_BD.float(), pids_B)
    return batch_hard_triplet_loss(features_BD, pids_B, loss.triplet_margin, loss.normalize_triplet, loss.triplet == "soft")


def batch_hard_triplet_loss(
    features_BD: Tensor, pids_B: Tensor, margin: float = 0.3, normalized: bool = False, soft: bool = False
) -> Tensor:
    """Compute L_tri: for each anchor its farthest positive and nearest negative, max(0, d_p - d_n + margin), mean over anchors.

    Euclidean distance of features as they are, unless `normalized`. Source: Hermans et al., 2017; Luo et al.,
    Bag of Tricks, CVPRW 2019; Zhou et al., AAAI 2026, eq. 2.

    Args:
        features_BD: v_i2i.
        pids_B: identity of each picture. An anchor without a positive or without a negative is left out.
        margin: 0.3.
        normalized: Decision `loss.normalize_triplet`: features are L2-normalised first, so that training and ranking by cosine
            see one geometry.
        soft: log(1 + exp(d_p - d_n)) in place of the hinge (TransReID, SOLIDER); the margin has no part in it.

    Returns:
        Scalar; zero if no anchor has both.
    """
    features_BD = features_BD.float()
    distance = LpDistance(normalize_embeddings=normalized, p=2)
    triplets = BatchHardMiner(distance=distance)(features_BD, pids_B)
    if not len(triplets[0]):
        return features_BD.sum() * 0.0
    own = TripletMarginLoss(margin=0.0 if soft else margin, distance=distance, reducer=MeanReducer(), smooth_loss=soft)
    return own(features_BD, pids_B, triplets)
