"""Who moves the backbone, measured in training: each term's gradient on the shared blocks, the tasks' angle, and collapse."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hpl.runtime.distributed import average
from hpl.tasks import TASKS
from hpl.training.model import HPL, LOSSES, TERMS, Compared

FIGURES = [*(f"gradient_{name}" for name in LOSSES), "task_cosine", "mean_cosine", "margin_share", "instance_cosine"]
_COLLAPSED = 0.99  # mean cosine of pictures of different people


def diagnose(hpl: HPL, losses: dict[str, Tensor], x: Compared) -> dict[str, float]:
    """Measure a step before it is taken; the graph of `losses` stays.

    Figures are:

    - gradient_<term>: norm of the term's gradient on the blocks of the image tower, which both tasks share. None of it is Adam's:
      what a step makes of it, `train.moments` decides.
    - task_cosine: cosine between the gradients of both tasks there; negative: they pull apart (PCGrad, Yu et al., NeurIPS 2020).
      The paper's conflict (Fig. 1a), measured directly.
    - mean_cosine: of v_i2i of different people in the batch; near 1: all features lie in one direction.
    - margin_share: share of anchors whose nearest negative is not farther than the farthest positive by the margin.
    - instance_cosine: mean cosine of the pseudo-tokens of different pictures (P_v, eq. 4); near 1: they tell no instance.
    """
    shared = hpl.images.block_parameters()
    figures, of_task = {}, dict[str, Tensor]()
    for name, value in losses.items():
        found = torch.autograd.grad(value, shared, retain_graph=True, allow_unused=True)
        flat = torch.cat([(torch.zeros_like(each) if grad is None else grad).flatten() for each, grad in zip(shared, found)])
        average([flat])
        task = TERMS[name].task.name
        of_task[task] = of_task[task] + flat if task in of_task else flat
        figures[f"gradient_{name}"] = float(flat.norm())
    if len(of_task) == len(TASKS):
        figures["task_cosine"] = _cosine(*of_task.values())
    return figures | _collapse(x)


def _cosine(left: Tensor, right: Tensor) -> float:
    size = float(left.norm() * right.norm())
    return float(left @ right) / size if size else math.nan


@torch.no_grad()
def _collapse(x: Compared) -> dict[str, float]:
    figures, labels_S = {}, x.labels_S
    features_SD = x.v_i2i_SD.float()
    unit_SD = normalize(features_SD, dim=-1)
    other_SS = labels_S[:, None] != labels_S
    if other_SS.any():
        figures["mean_cosine"] = float((unit_SD @ unit_SD.T)[other_SS].mean())
    compared_SD = unit_SD if x.loss.normalize_triplet else features_SD
    distances_SS = torch.cdist(compared_SD, compared_SD)
    own_SS = ~other_SS & ~torch.eye(len(labels_S), dtype=torch.bool, device=labels_S.device)
    anchors_S = own_SS.any(1) & other_SS.any(1)
    if anchors_S.any():
        farthest_S = distances_SS.masked_fill(~own_SS, -math.inf).amax(1)
        nearest_S = distances_SS.masked_fill(~other_SS, math.inf).amin(1)
        figures["margin_share"] = float((nearest_S - farthest_S < x.loss.triplet_margin)[anchors_S].float().mean())
    if x.image_instance_TKW is not None and len(x.image_instance_TKW) > 1:
        unit_TE = normalize(x.image_instance_TKW.float().flatten(1), dim=-1)
        count = len(unit_TE)
        figures["instance_cosine"] = float(((unit_TE @ unit_TE.T).sum() - count) / (count * (count - 1)))
    return figures


def collapse_of(figures: dict[str, float]) -> str:
    """Say what has collapsed, in a line for a person; empty if nothing has."""
    if not figures.get("mean_cosine", 0.0) > _COLLAPSED:
        return ""
    return (
        f"v_i2i of different people have a mean cosine of {figures['mean_cosine']:.3f}, and {figures.get('margin_share', 1):.0%} "
        "of the anchors are within the triplet's margin: all features lie in one direction. Ranking may still work, by what is "
        "left of their differences; if validation falls, lower train.peak_lr, or change loss.triplet or train.moments"
    )
