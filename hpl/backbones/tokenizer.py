"""CLIP's tokenizer: captions -> token ids."""

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor


def tokenize(captions: Iterable[str], context_length: int) -> Tensor:
    """Tokenise with CLIP's byte-pair vocabulary. Returns int64, len(captions) x context_length.

    A caption over the context length is cut, and its last token is still end-of-text. About 0.15 ms a caption: the tokenizer is
    made once a process, and remembers the words it has seen.
    """
    captions = list(captions)
    if not captions:
        return torch.empty(0, context_length, dtype=torch.int64)
    return _tokenizer()(captions, context_length)


def token_lengths(captions: Iterable[str]) -> np.ndarray:
    """Count the tokens of each caption before any is cut, begin and end of text included. int64, len(captions)."""
    tokenizer = _tokenizer()
    return np.array([len(tokenizer.encode(caption)) + 2 for caption in captions], dtype=np.int64)


@cache
def _tokenizer() -> SimpleTokenizer:
    """Make open_clip's tokenizer, for which `<end_of_text>` in a caption is text as any other, and ends nothing."""
    tokenizer = SimpleTokenizer()
    special = "|".join(tokenizer.cache)  # the names of begin and end of text, which alone are in it so far
    tokenizer.pat = "(?i)" + tokenizer.pat.pattern.removeprefix(f"{special}|")
    tokenizer.cache = {}
    return tokenizer
