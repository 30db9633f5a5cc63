"""CLIP's two towers as HPL runs them: every token comes out projected, and the image tower may hold a second class token.

Shapes: B pictures or texts; N patches; D joint width; W text width; L text tokens; C width of the image tower.
Source: Radford et al., ICML 2021 (CLIP); Zhou et al., AAAI 2026, eq. 1 (Task-Routed Transformer).
"""

from copy import deepcopy

import torch
from open_clip.model import CLIP
from torch import Tensor, nn


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

    def forward(self, images_B3HW: Tensor, hide_i2i_token: bool = False) -> Tensor:
        """Project all visual tokens: F_v, B x (2+N) x D, in the order v_t2i, v_i2i, patches.

        Without task routing there is one class token and v_i2i = v_t2i: it stands in both places.
        `hide_i2i_token` masks the new token out of everybody's attention: then v_t2i is exactly plain CLIP's.
        """
        visual = self.visual
        patches_BNC = visual.conv1(images_B3HW).flatten(2).transpose(1, 2)
        tokens = [visual.class_embedding + visual.positional_embedding[0]]
        if self.task_routing:
            tokens.append(self.i2i_token + self.i2i_position)
        classes_BXC = torch.stack(tokens).to(patches_BNC.dtype).expand(len(images_B3HW), -1, -1)
        x = torch.cat([classes_BXC, patches_BNC + visual.positional_embedding[1:].to(patches_BNC.dtype)], dim=1)
        mask = None
        if hide_i2i_token and self.task_routing:
            mask = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device)
            mask[:, 1] = float("-inf")
            mask[1, 1] = 0.0
        x = visual.transformer(visual.ln_pre(x), attn_mask=mask)
        x = visual.ln_post(x) @ visual.proj
        return x if self.task_routing else torch.cat([x[:, :1], x], dim=1)


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
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)

    @property
    def width(self) -> int:
        """W, the width of a token embedding."""
        return self.token_embedding.embedding_dim

    def forward(self, token_ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Encode captions. Returns F_t, B x L' x D, and the end-of-text positions, B; L' is the longest caption of the batch.

        The tower is causal, so what follows a caption's end cannot change it: the batch is cut at its last end-of-text, and rows of
        F_t after a caption's own end hold noise.
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


def end_positions(token_ids_BL: Tensor) -> Tensor:
    """Position of end-of-text in each row: the highest token id of CLIP's vocabulary."""
    return token_ids_BL.argmax(dim=-1)


def at_end(tokens_BLD: Tensor, ends_B: Tensor) -> Tensor:
    """The token at each row's end-of-text, B x D (t_eos of F_t)."""
    return tokens_BLD[torch.arange(len(tokens_BLD), device=tokens_BLD.device), ends_B]


def frozen_copy(tower: nn.Module) -> nn.Module:
    """A second copy of a tower that never learns (M~_t)."""
    return deepcopy(tower).eval().requires_grad_(False)
