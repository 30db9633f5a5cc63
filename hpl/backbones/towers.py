"""CLIP's two towers as HPL runs them: every token comes out projected, and the image tower may hold a second class token.

Shapes: B pictures or texts; N patches; D joint width; W text width; L text tokens; C width of the image tower.
Source: Radford et al., ICML 2021 (CLIP); Zhou et al., AAAI 2026, eq. 1 (Task-Routed Transformer).
"""

from copy import deepcopy

import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpl.files import HplError


class ImageTower(nn.Module):
    """The CLIP ViT with the input sequence [cls_t2i, cls_i2i, patches] (eq. 1), or [cls, patches] without task routing.

    The original class token keeps its weights and becomes cls_t2i. cls_i2i is new, with a positional embedding of its own.
    """

    def __init__(
        self, clip: CLIP, *, task_routing: bool, i2i_token_init: str = "copy", i2i_token_noise: float = 0.0, seed: int = 0
    ) -> None:
        """Take over the image tower of `clip`.

        Args:
            i2i_token_init: "copy" of the original class token and its position, or "random" with the same standard deviation.
            i2i_token_noise: standard deviation of the noise on the copy, in units of the token's own.
            seed: of that noise alone, so that both stages start from the same token.
        """
        super().__init__()
        self.visual = clip.visual
        self.task_routing = task_routing
        if task_routing:
            token, position = self.visual.class_embedding.detach(), self.visual.positional_embedding.detach()[0]
            generator = torch.Generator().manual_seed(seed)
            self.i2i_token = nn.Parameter(_second_token(token, i2i_token_init, i2i_token_noise, generator))
            self.i2i_position = nn.Parameter(_second_token(position, i2i_token_init, i2i_token_noise, generator))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Project all visual tokens: F_v, B x (2+N) x D, in the order v_t2i, v_i2i, patches.

        Without task routing there is one class token and v_i2i = v_t2i: it stands in both places.
        """
        visual = self.visual
        x = visual.ln_post(visual.transformer(self._tokens(images_B3HW))) @ visual.proj
        return x if self.task_routing else torch.cat([x[:, :1], x], dim=1)

    def classes(self, images_B3HW: Tensor) -> Tensor:
        """Project v_t2i and v_i2i alone, B x 2 x D, the first of `forward`: the last block is spared the patches as queries."""
        visual = self.visual
        x = run_blocks(visual.transformer, self._tokens(images_B3HW), kept=slice(2 if self.task_routing else 1))
        return (visual.ln_post(x) @ visual.proj).expand(-1, 2, -1)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return those that CLIP has not: the second class token and its position."""
        return [self.i2i_token, self.i2i_position] if self.task_routing else []

    def block_parameters(self) -> list[nn.Parameter]:
        """Return those of the transformer's blocks, which every token passes."""
        return [parameter for parameter in self.visual.transformer.parameters() if parameter.requires_grad]

    def _tokens(self, images_B3HW: Tensor) -> Tensor:
        """Embed class tokens and patches with their positions, for the first block: B x (2+N) x C (1+N without task routing)."""
        visual = self.visual
        patches_BNC = visual.conv1(images_B3HW).flatten(2).transpose(1, 2)
        tokens = [visual.class_embedding + visual.positional_embedding[0]]
        if self.task_routing:
            tokens.append(self.i2i_token + self.i2i_position)
        classes_BXC = torch.stack(tokens).to(patches_BNC.dtype).expand(len(images_B3HW), -1, -1)
        x = torch.cat([classes_BXC, patches_BNC + visual.positional_embedding[1:].to(patches_BNC.dtype)], dim=1)
        return visual.ln_pre(x)


def _second_token(original: Tensor, init: str, noise: float, generator: torch.Generator) -> Tensor:
    random = torch.randn(original.shape, generator=generator).to(original) * original.std()
    return random if init == "random" else original + noise * random


class TextTower(nn.Module):
    """The CLIP text transformer; reads token ids (captions) or vectors in its token-embedding space (prompts)."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.attn_mask = nn.Buffer(clip.attn_mask, persistent=False)

    @property
    def width(self) -> int:
        """W, the width of a token embedding."""
        return self.token_embedding.embedding_dim

    def forward(self, token_ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Encode captions. Returns F_t, B x L' x D, and the end-of-text positions, B; L' is the longest caption of the batch.

        The tower is causal, so what follows a caption's end cannot change it: the batch is cut at its last end-of-text, and rows
        of F_t after a caption's own end hold noise.
        """
        ends_B = end_positions(token_ids_BL)
        token_ids_BL = token_ids_BL[:, : int(ends_B.max()) + 1 if len(ends_B) else 1]
        return self.encode(self.token_embedding(token_ids_BL)), ends_B

    def encode(self, embeddings_BLW: Tensor) -> Tensor:
        """Encode token embeddings, B x L x W with L at most the context length. Returns B x L x D."""
        length = embeddings_BLW.shape[1]
        x = embeddings_BLW + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        return self.ln_final(x) @ self.text_projection

    def encode_last(self, embeddings_BLW: Tensor) -> Tensor:
        """Encode the last token alone, B x D: the last block is spared all others as queries."""
        length = embeddings_BLW.shape[1]
        x = embeddings_BLW + self.positional_embedding[:length]
        x = run_blocks(self.transformer, x, self.attn_mask[:length, :length], kept=slice(length - 1, length))
        return self.ln_final(x[:, 0]) @ self.text_projection


def run_blocks(transformer: Transformer, x_BLC: Tensor, mask_LL: Tensor | None = None, *, kept: slice) -> Tensor:
    """Compute `transformer(x, mask)[:, kept]`: the last block what is kept and no more, for which the rest is keys and values.

    Args:
        mask_LL: added to the logits of attention; None: everything sees everything.
    """
    *blocks, last = transformer.resblocks
    for block in blocks:
        if transformer.grad_checkpointing and torch.is_grad_enabled():
            x_BLC = checkpoint(block, x_BLC, None, None, mask_LL, use_reentrant=False)
        else:
            x_BLC = block(x_BLC, attn_mask=mask_LL)
    return _kept_of_block(last, x_BLC, None if mask_LL is None else mask_LL[kept], kept)


def _kept_of_block(block: ResidualAttentionBlock, x_BLC: Tensor, mask_KL: Tensor | None, kept: slice) -> Tensor:
    normed_BLC, x_BKC = block.ln_1(x_BLC), x_BLC[:, kept]
    x_BKC = x_BKC + block.ls_1(block.attention(normed_BLC[:, kept], normed_BLC, normed_BLC, attn_mask=mask_KL))
    return x_BKC + block.ls_2(block.mlp(block.ln_2(x_BKC)))


def end_positions(token_ids_BL: Tensor) -> Tensor:
    """Find end-of-text in each row: the highest token id of CLIP's vocabulary."""
    return token_ids_BL.argmax(dim=-1)


def at_end(tokens_BLD: Tensor, ends_B: Tensor) -> Tensor:
    """Take the token at each row's end-of-text, B x D (t_eos of F_t)."""
    return tokens_BLD[torch.arange(len(tokens_BLD), device=tokens_BLD.device), ends_B]


def frozen_copy(tower: TextTower) -> TextTower:
    """Make a second copy of a tower that never learns (M~_t)."""
    return deepcopy(tower).eval().requires_grad_(False)


def compile_blocks(transformers: list[Transformer], device: torch.device) -> None:
    """Compile each block of open_clip transformers in place: names of parameters stay. HplError if nothing can be compiled."""
    from torch._dynamo.exc import TorchDynamoException  # imported here, for it takes seconds

    try:
        torch.compile(torch.sin, fullgraph=True)(torch.ones(8, device=device))  # a trial: blocks are compiled at their first use
    except TorchDynamoException as error:
        cause = next((line for line in str(error).splitlines() if line.strip()), "")
        raise HplError(
            f"train.compile: true, but torch.compile finds no working compiler for {device.type} ({cause}); "
            "expected a C++ compiler (cpu) or Triton (cuda), or train.compile: false"
        ) from None
    for transformer in transformers:
        for block in transformer.resblocks:
            block.compile()
