"""Batch-hard triplet, part of eq. 2. The mining and the loss are pytorch-metric-learning's."""

from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor


def batch_hard_triplet_loss(features_BD: Tensor, pids_B: Tensor, margin: float = 0.3, normalized: bool = False) -> Tensor:
    """Compute L_tri: for each anchor its farthest positive and nearest negative, max(0, d_p - d_n + margin), mean over anchors.

    Euclidean distance of features as they are, unless `normalized`. Source: Hermans et al., 2017; Luo et al.,
    Bag of Tricks, CVPRW 2019; Zhou et al., AAAI 2026, eq. 2.

    Args:
        features_BD: v_i2i.
        pids_B: identity of each picture. An anchor without a positive or without a negative is left out.
        margin: 0.3.
        normalized: Decision `loss.normalize_triplet`: features are L2-normalised first, so that training and ranking by cosine
            see one geometry.

    Returns:
        Scalar; zero if no anchor has both.
    """
    features_BD = features_BD.float()
    distance = LpDistance(normalize_embeddings=normalized, p=2)
    triplets = BatchHardMiner(distance=distance)(features_BD, pids_B)
    if not len(triplets[0]):
        return features_BD.sum() * 0.0
    return TripletMarginLoss(margin=margin, distance=distance, reducer=MeanReducer())(features_BD, pids_B, triplets)
