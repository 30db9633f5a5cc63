"""A small HPL in training, and one batch for it."""

import torch
from open_clip.model import CLIP

from hpl.backbones.tokenizer import tokenize
from hpl.backbones.towers import TextTower, frozen_copy
from hpl.batches.loading import Batch
from hpl.config import Inversion, load_params
from hpl.prompts.parts import PromptParts
from hpl.training.model import HPL
from tests.support.imports import ROOT

PARAMS = load_params(ROOT / "params.yaml")
LABELS = [0, 1, 0, 2, 2, 3, 3]  # of the seven pictures; the first three have captions; 4 occurs nowhere
LOSS = PARAMS.loss.model_copy(update={"prompt_temperature": 0.1, "sdm_temperature": 0.1})  # so that float32 keeps five digits


def model(clip: CLIP, prompts: bool, task_routing: bool) -> HPL:
    torch.manual_seed(0)
    parts = (
        PromptParts(PARAMS.prompt, Inversion(layers=1, heads=2), frozen_copy(TextTower(clip)), [3, 4, 6, 7, 8])
        if prompts
        else None
    )
    if prompts:
        parts.identity_prompts.normal_(), parts.identity_tokens.data.normal_()
    routed = PARAMS.model.model_copy(update={"task_routing": task_routing, "i2i_token_noise": 0.5})
    hpl = HPL(clip, routed, 5, parts, seed=0).train()
    with torch.no_grad():
        hpl.t2i_classifier.weight.normal_(), hpl.t2i_classifier.bias.normal_()
        hpl.i2i_neck.weight.uniform_(0.5, 2), hpl.i2i_classifier.weight.normal_()
    return hpl


def batch() -> Batch:
    images = torch.randn(7, 3, 24, 12, generator=torch.Generator().manual_seed(1))
    tokens = tokenize(["A man in red.", "A woman walks past the blue shop.", "A child."], 32)
    return Batch(images, tokens, torch.tensor(LABELS), 3)
