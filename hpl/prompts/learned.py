"""What stage I learns and stage II takes over: networks, identity tokens, and the table of identity prompts."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hpl.backbones.towers import TextTower
from hpl.config import Inversion, Prompt
from hpl.files import HplError, parsing
from hpl.prompts.inversion import InversionNetwork

PROMPTS_FILE = "prompts.safetensors"
_AGAIN = "delete it and run the construct_prompts stage again"
_IDENTITY_TOKEN_DEVIATION = 0.02  # CLIP-ReID's


class LearnedPrompts(nn.Module):
    """I_v, I_t, the identity tokens id_y, N x M x W (eqs. 3 and 4), and r~, N x D (eq. 7), which stage I fills at its end."""

    def __init__(self, options: Prompt, inversion: Inversion, text_tower: TextTower, pids: list[int]) -> None:
        """Draw fresh networks and tokens; `pids` gives the identity of each row."""
        super().__init__()
        joint_width = text_tower.text_projection.shape[1]
        if joint_width % inversion.heads:
            raise HplError(f"inversion.heads = {inversion.heads} does not divide the embedding width {joint_width}")

        def network() -> InversionNetwork:
            return InversionNetwork(
                input_width=joint_width,
                output_width=text_tower.width,
                num_tokens=options.instance_tokens,
                num_layers=inversion.layers,
                num_heads=inversion.heads,
                output_scale=float(text_tower.token_embedding.weight.std()),
            )

        self.image_inversion = network()
        self.text_inversion = network()
        tokens = torch.randn(len(pids), options.id_tokens, text_tower.width) * _IDENTITY_TOKEN_DEVIATION
        self.identity_tokens = nn.Parameter(tokens)
        self.identity_prompts = nn.Buffer(torch.zeros(len(pids), joint_width))
        self.pids = nn.Buffer(torch.tensor(pids, dtype=torch.int64))


def save_prompts(folder: Path, prompts: LearnedPrompts | None) -> None:
    """Write the prompts; where they are not enabled, a file that holds none."""
    state = {} if prompts is None else prompts.state_dict()
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, Path(folder) / PROMPTS_FILE)


def load_prompts(folder: Path, options: Prompt, inversion: Inversion, text_tower: TextTower) -> LearnedPrompts:
    """Read what `save_prompts` wrote. HplError if it was made without prompts or in another shape."""
    path = Path(folder) / PROMPTS_FILE
    if not path.is_file():
        raise HplError(f"{path}: file not found; run the construct_prompts stage")
    with parsing(path, _AGAIN):
        tensors = load_file(path)
    if "pids" not in tensors:
        raise HplError(f"{path}: made with prompt.enabled: false; run the construct_prompts stage again")
    if tensors["pids"].dtype != torch.int64 or tensors["pids"].dim() != 1:
        raise HplError(f"{path}: pids of {tensors['pids'].dtype}; {_AGAIN}")
    prompts = LearnedPrompts(options, inversion, text_tower, tensors["pids"].tolist())
    try:
        prompts.load_state_dict(tensors)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise HplError(f"{path}: made with other prompt parameters ({said}); run the construct_prompts stage again") from None
    return prompts
