"""The prompt template, eqs. 3, 5 and 7: words are embedded by M~_t, the bracketed places take vectors.

Shapes: B prompts; M identity tokens; K instance tokens; W text width; D joint width.
"""

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from hpl.backbones.towers import TextTower
from hpl.files import HplError

_OPENING, _LINK, _CLOSING = "A photo of", "and", "person."


class PromptEncoder(nn.Module):
    """M~_t, the frozen second copy of the text tower, reading prompts of words and vectors.

    Every prompt of one kind has the same length, so end-of-text is its last position; the tower is causal, so nothing is padded.
    """

    def __init__(self, tower: TextTower) -> None:
        """Take a frozen tower (hpl.backbones.towers.frozen_copy)."""
        super().__init__()
        self.tower = tower
        tokenizer = SimpleTokenizer()
        opening = [tokenizer.sot_token_id, *tokenizer.encode(_OPENING)]
        closing = [*tokenizer.encode(_CLOSING), tokenizer.eot_token_id]
        self.opening = nn.Buffer(torch.tensor(opening), persistent=False)
        self.link = nn.Buffer(torch.tensor(tokenizer.encode(_LINK)), persistent=False)
        self.closing = nn.Buffer(torch.tensor(closing), persistent=False)

    def instance_prompt(self, identity_BMW: Tensor, instance_BKW: Tensor) -> Tensor:
        """Read `A photo of [id-tokens] and [inst-tokens] person.` (eqs. 3, 5). Returns v~_eos or t~_eos, B x D."""
        return self._encode([self.opening, identity_BMW, self.link, instance_BKW, self.closing])

    def identity_prompt(self, identity_BMW: Tensor) -> Tensor:
        """Read `A photo of [id-tokens] person.` (eq. 7). Returns r~_y, B x D."""
        return self._encode([self.opening, identity_BMW, self.closing])

    def embed(self, pieces: list[Tensor]) -> Tensor:
        """Join word ids (1-D) and vectors (B x n x W) to the embeddings of a prompt, B x L x W."""
        batch = next(len(piece) for piece in pieces if piece.dim() == 3)
        words = self.tower.token_embedding
        embeddings = [piece if piece.dim() == 3 else words(piece).expand(batch, -1, -1) for piece in pieces]
        prompt_BLW = torch.cat(embeddings, dim=1)
        context = len(self.tower.positional_embedding)
        if prompt_BLW.shape[1] > context:
            raise HplError(
                f"prompt.id_tokens and prompt.instance_tokens make a prompt of {prompt_BLW.shape[1]} tokens; "
                f"the text tower reads {context}"
            )
        return prompt_BLW

    def _encode(self, pieces: list[Tensor]) -> Tensor:
        return self.tower.encode_last(self.embed(pieces))
