"""A CLIP of width 16 that reads pictures of 24 x 12, random but the same each time."""

import torch
from open_clip.model import CLIP

from hpl.backbones.weights import build_clip
from hpl.config import Input

SIZE = Input(height=24, width=12, context_length=32)
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": [24, 12], "layers": 2, "width": 16, "head_width": 8, "patch_size": 6},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}


def fresh_clip() -> CLIP:
    """Build the CLIP of TINY, with 8 patches."""
    torch.manual_seed(0)
    model = build_clip(TINY).eval()
    with torch.no_grad():  # projections of a fresh CLIP are random, the text one is not initialised by open_clip's classes alone
        model.text_projection.normal_(std=24**-0.5)
    return model
