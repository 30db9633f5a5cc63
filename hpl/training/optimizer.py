"""Which weights of stage II learn at what rate, which of them decay, and whose gradient moves them: the sum's, or each task's."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hpl.config import Train
from hpl.runtime.distributed import average_gradients
from hpl.training.model import HPL, TERMS, Head

_JOINT = "joint"
_VECTORS = ("embedding", "position", "token", "queries")  # in the names of what a weight decay would pull to zero, or to its mean


class Optimizer:
    """Adam, with one pair of moments a weight, or one for each task.

    One Adam for the sum moves a shared weight by the measure of whichever task has the larger gradient. With moments for each
    task, every task's gradient is divided by its own size, and the steps are added; a weight that a task does not reach gets no
    step from it. Source: Yang et al., AdaTask, AAAI 2023.
    """

    def __init__(self, hpl: HPL, options: Train, tasks: Iterable[str]) -> None:
        """Take over the parameters that learn; `tasks` are those that are trained."""
        self.parameters = [parameter for parameter in hpl.parameters() if parameter.requires_grad]
        names = list(tasks) if options.moments == "task" else [_JOINT]
        self.adams = {name: _adam(hpl, options, 1 / len(names)) for name in names}

    def step(self, losses: dict[str, Tensor], lr: float) -> None:
        """Move all weights by the gradients of the terms of L_total, by their names in TERMS; `lr` is the towers' rate."""
        totals: dict[str, Tensor] = {}
        for name, value in losses.items():
            owner = _JOINT if _JOINT in self.adams else TERMS[name].task.name
            totals[owner] = totals[owner] + value if owner in totals else value
        gradients = {}
        for number, (owner, total) in enumerate(totals.items(), start=1):
            for parameter in self.parameters:
                parameter.grad = None
            total.backward(retain_graph=number < len(totals))
            average_gradients(self.parameters)
            gradients[owner] = [parameter.grad for parameter in self.parameters]
        for owner, each in gradients.items():
            for parameter, gradient in zip(self.parameters, each, strict=True):
                parameter.grad = gradient
            for group in self.adams[owner].param_groups:
                group["lr"] = lr * group["lr_factor"]
            self.adams[owner].step()

    def state_dict(self) -> dict:
        """Hand out what a checkpoint keeps."""
        return {name: adam.state_dict() for name, adam in self.adams.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, adam in self.adams.items():
            adam.load_state_dict(state[name])


def _adam(hpl: HPL, options: Train, share: float) -> torch.optim.Optimizer:
    """Make one Adam over all that learns; `share` of the weight decay is its own, since each of several steps decays."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
    groups = parameter_groups(hpl, options)
    for group in groups:
        group["weight_decay"] = options.weight_decay * share if group["decays"] else 0.0
    return kind(groups, lr=options.start_lr, eps=options.eps, fused=True)


def parameter_groups(hpl: HPL, options: Train) -> list[dict]:
    """Group what learns in stage II by `lr_factor`, its rate relative to the towers' matrices, and by whether it `decays`.

    Matrices alone decay: of norms, biases, class tokens, positions and word embeddings none does. A decay that is part of the
    gradient, divided by Adam's small second moment, would take a weight that gets no other gradient to zero within an epoch.
    Source: Jiang & Ye, IRRA, CVPR 2023 (rates of biases and classifiers, eps).
    """
    new = {id(parameter) for parameter in hpl.images.new_parameters()}
    heads = {id(parameter) for module in hpl.modules() if isinstance(module, Head) for parameter in module.parameters()}
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in hpl.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if id(parameter) in heads:
            factor = options.classifier_lr_factor
        elif id(parameter) in new:
            factor = options.new_token_lr_factor
        elif name.endswith("bias"):
            factor = options.bias_lr_factor
        decays = parameter.ndim > 1 and not any(word in name for word in _VECTORS)
        found.setdefault((factor, decays), []).append(parameter)
    return [{"params": group, "lr_factor": factor, "decays": decays} for (factor, decays), group in found.items()]
