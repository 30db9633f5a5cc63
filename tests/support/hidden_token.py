"""The second class token masked out of everybody's attention: then v_t2i is exactly plain CLIP's."""

import torch
from torch import Tensor

from hpl.backbones.towers import ImageTower


def encode_without_i2i_token(tower: ImageTower, images: Tensor) -> Tensor:
    """Run the tower where no other token sees the new one."""
    length = len(tower.visual.positional_embedding) + 1
    mask = torch.zeros(length, length)
    mask[:, 1] = float("-inf")
    mask[1, 1] = 0.0
    hook = tower.visual.transformer.register_forward_pre_hook(
        lambda module, inputs, options: (inputs, {**options, "attn_mask": mask}), with_kwargs=True
    )
    try:
        return tower(images)
    finally:
        hook.remove()
