"""Captions -> token ids."""

from collections.abc import Iterable

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor


def tokenize(captions: Iterable[str], context_length: int) -> Tensor:
    """Tokenise with CLIP's byte-pair vocabulary. Returns int64, len(captions) x context_length.

    A caption over the context length is cut, and its last token is still end-of-text.
    """
    captions = list(captions)
    if not captions:
        return torch.empty(0, context_length, dtype=torch.int64)
    return SimpleTokenizer(context_length=context_length)(captions)
