"""Inversion networks I_v and I_t, eq. 4: tokens of a picture or caption -> K pseudo-tokens among the word embeddings of M~_t."""

import torch
from torch import Tensor, nn


class InversionNetwork(nn.Module):
    """I_v or I_t (eq. 4). Decision: K learnable queries are prepended; after pre-norm blocks a linear map takes them to W."""

    def __init__(
        self, *, input_width: int, output_width: int, num_tokens: int, num_layers: int, num_heads: int, output_scale: float
    ) -> None:
        """Draw a network whose fresh pseudo-tokens deviate by `output_scale`, as the word embeddings do that they stand among."""
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_tokens, input_width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                input_width, num_heads, 4 * input_width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(input_width)
        self.output = nn.Linear(input_width, output_width)
        nn.init.normal_(self.output.weight, std=output_scale * input_width**-0.5)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens_BLD: Tensor, ends_B: Tensor | None = None) -> Tensor:
        """Invert tokens, B x L x D, to pseudo-tokens, B x K x W.

        Args:
            ends_B: position of end-of-text in each row; what follows it is masked. None: every row is full.
        """
        num_tokens = len(self.queries)
        x = torch.cat([self.queries.to(tokens_BLD.dtype).expand(len(tokens_BLD), -1, -1), tokens_BLD], dim=1)
        padding = None
        if ends_B is not None:
            positions = torch.arange(-num_tokens, tokens_BLD.shape[1], device=tokens_BLD.device)
            padding = positions[None, :] > ends_B[:, None]
        for block in self.blocks[:-1]:
            x = _run_block(block, x, x.shape[1], padding)
        return self.output(self.norm(_run_block(self.blocks[-1], x, num_tokens, padding)))


def _run_block(block: nn.Module, x_BLD: Tensor, num_kept: int, padding_BL: Tensor | None) -> Tensor:
    """Compute the first `num_kept` rows of `block(x, src_key_padding_mask=padding)` alone: the rest of x is keys and values."""
    assert isinstance(block, nn.TransformerEncoderLayer)
    normed_BLD, x_BKD = block.norm1(x_BLD), x_BLD[:, :num_kept]
    attended_BKD, _ = block.self_attn(
        normed_BLD[:, :num_kept], normed_BLD, normed_BLD, key_padding_mask=padding_BL, need_weights=False
    )
    x_BKD = x_BKD + attended_BKD
    return x_BKD + block.linear2(block.activation(block.linear1(block.norm2(x_BKD))))
