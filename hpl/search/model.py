"""The trained model as search uses it: loaded when the first picture or sentence is encoded, and not before."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from hpl.config import Input
from hpl.evaluation.calibration import Calibration, load_calibration
from hpl.evaluation.similarity import unit
from hpl.files import HplError, read_json
from hpl.search.store import file_sha256

_BATCH = 64  # pictures a forward pass


class SearchModel:
    """A model folder, as the train stage writes it."""

    def __init__(self, folder: Path | str, device: str = "auto") -> None:
        """Read the description alone. HplError if the folder holds no model."""
        self.folder, self.device_name = Path(folder), device
        for name in ("model.json", "model.safetensors"):
            if not (self.folder / name).is_file():
                raise HplError(
                    f"{folder}: no model ({name} is missing); expected a folder such as data/model, by --model or HPL_MODEL"
                )
        self.about = read_json(self.folder / "model.json")
        try:
            self.input, self.features = Input(**self.about["input"]), int(self.about["clip"]["embed_dim"])
        except (KeyError, TypeError, ValueError):
            raise HplError(f"{self.folder / 'model.json'}: no description of a model; expected `input` and `clip`") from None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the tensors' file."""
        return file_sha256(self.folder / "model.safetensors")

    @cached_property
    def calibration(self) -> Calibration | None:
        """What maps scores to probabilities; None if the model has none."""
        return load_calibration(self.folder, self.sha256)

    @cached_property
    def device(self):  # noqa: ANN201  (torch is imported late)
        """Where the towers run."""
        import torch

        cuda = self.device_name == "auto" and torch.cuda.is_available()
        return torch.device("cuda" if cuda else self.device_name.replace("auto", "cpu"))

    @cached_property
    def _towers(self) -> tuple:
        from hpl.backbones.trained import load_trained

        images, texts, _ = load_trained(self.folder)
        return images.to(self.device), texts.to(self.device)

    def encode_pictures(self, pixels_B3HW: np.ndarray) -> np.ndarray:
        """Encode uint8 pictures of the model's input size: v_t2i and v_i2i of unit length, float32, B x 2 x D."""
        import torch

        from hpl.backbones.encoding import encode_pixels

        with torch.inference_mode():
            starts = range(0, len(pixels_B3HW), _BATCH)
            parts = [encode_pixels(self._towers[0], pixels_B3HW[start : start + _BATCH], self.device) for start in starts]
        both = np.concatenate([np.empty((0, 2, self.features), np.float32), *parts])
        return unit(both.reshape(-1, self.features)).reshape(both.shape)

    def encode_texts(self, sentences: Sequence[str]) -> np.ndarray:
        """Encode sentences: t_eos of unit length, float32, B x D. HplError at one without any word that CLIP knows."""
        import torch

        from hpl.backbones.encoding import encode_sentences
        from hpl.backbones.tokenizer import token_lengths

        for sentence in sentences:
            words = re.findall(r"[^\W\d_]{2,}", sentence)
            if not words or (token_lengths(words) > 3).all():  # a known word is one token between begin and end of text
                raise HplError(
                    f"{sentence!r}: no known word in it; expected an English description, such as 'a man in a red coat'"
                )
        with torch.inference_mode():
            return unit(encode_sentences(self._towers[1], sentences, self.input.context_length, self.device))
