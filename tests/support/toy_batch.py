"""A batch of three captioned pictures and four others."""

import torch

from hpl.backbones.tokenizer import tokenize
from hpl.batches.loading import Batch

CAPTIONS = ["A man in red.", "A woman walks past the blue shop.", "A child."]


def toy_batch(num_captioned: int = 3) -> Batch:
    """Seven pictures of four people, random but the same each time; people 0, 2 and 3 have two of them."""
    images = torch.randn(7, 3, 24, 12, generator=torch.Generator().manual_seed(1))
    return Batch(images, tokenize(CAPTIONS[:num_captioned], 32), torch.tensor([0, 1, 0, 2, 2, 3, 3]), num_captioned)
