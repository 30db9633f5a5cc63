"""Read CLIP weights from a file, whatever program wrote it: told apart by content, and no code that the file holds is run.

A file is a container and the names in it. Containers: a TorchScript archive, as OpenAI ships its weights; a file of torch.save;
a safetensors file. Names: those of OpenAI and open_clip, which are the same, but for three numbers that OpenAI's state dict holds
in whatever container it was saved again; or those of IRRA (Jiang and Ye, CVPR 2023) and the ReID checkpoints that come from its
code, where CLIP is `base_model` beside the heads of their losses.
"""

import pickle
import re
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hpl.files import HplError

_HEADER_LIMIT = 100_000_000  # bytes; of safetensors itself
_WRAPPERS = ("state_dict", "model", "module")  # where training programs put a state dict beside their optimizer and the like
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_IRRA_PREFIX = "base_model."
_SETTINGS = ("input_resolution", "context_length", "vocab_size")  # OpenAI's state dict holds these numbers, no other one does


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """What a file holds.

    Attributes:
        layout: container and names, in words.
        state: tensors under open_clip's names.
        heads: names of tensors that stand beside CLIP, not in it.
        irra: the names are those of IRRA.
        from_openai: it is the state dict of a model as OpenAI ships them, which use QuickGELU.
        resolution: side of the square pictures in pixels, which OpenAI's files tell; None elsewhere.
    """

    layout: str
    state: dict[str, Tensor]
    heads: list[str] = field(default_factory=list)
    irra: bool = False
    from_openai: bool = False
    resolution: int | None = None


def read_weight_file(path: Path | str) -> WeightFile:
    """Read a file of weights. HplError if it is none, damaged, or holds objects that only code could rebuild."""
    container, content = _read_container(Path(path))
    for _ in _WRAPPERS:
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)), None)
        content = content if inner is None else inner
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if large := [name for name, value in state.items() if _is_larger_than_stored(value)]:
        raise HplError(f"{path}: {some(large)} repeats few numbers many times; expected tensors that are stored whole")
    if not state:
        raise HplError(f"{path}: a {container} without a state dict; it holds {some([str(name) for name in content])}")
    for prefix in _PREFIXES * 2:  # either may stand outside
        state = _without(prefix, state) if all(name.startswith(prefix) for name in state) else state
    if any(name.startswith(_IRRA_PREFIX) for name in state):
        clip = _without(_IRRA_PREFIX, {name: value for name, value in state.items() if name.startswith(_IRRA_PREFIX)})
        heads = sorted(name for name in state if not name.startswith(_IRRA_PREFIX))
        return WeightFile(layout=f"{container}, names of the IRRA family", state=_without_masks(clip), heads=heads, irra=True)
    if "text.positional_embedding" in state:  # open_clip's own other way to name the text tower
        state = {name.removeprefix("text."): value for name, value in state.items()}
    settings = {name: state.pop(name) for name in _SETTINGS if name in state}
    state = _without_masks(state)
    if len(settings) < len(_SETTINGS):
        return WeightFile(layout=container, state=state)
    side = settings["input_resolution"]
    resolution = int(side) if _is_number(side) else None
    layout = f"OpenAI's {container}" if container == TORCHSCRIPT else f"{container}, OpenAI's state dict"
    return WeightFile(layout=layout, state=state, from_openai=True, resolution=resolution)


def _is_number(value: Tensor) -> bool:
    return value.numel() == 1 and value.layout == torch.strided and not value.is_complex() and bool(value.isfinite().all())


def _is_larger_than_stored(value: Tensor) -> bool:
    strided = value.layout == torch.strided and value.device.type == "cpu"
    return strided and value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _without(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _without_masks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the causal masks, which are constants."""
    return {name: value for name, value in state.items() if not name.endswith("attn_mask")}


def some(names: list[str], most: int = 3) -> str:
    """Name the first few of some names, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") if names else "nothing"


TORCHSCRIPT, TORCH, SAFETENSORS = "TorchScript archive", "PyTorch file", "safetensors file"


def _read_container(path: Path) -> tuple[str, dict]:
    with open(path, "rb") as file:
        head = file.read(64)
    try:
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _HEADER_LIMIT:
            return SAFETENSORS, load_file(path)
        if head[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                _check_members(archive, path.stat().st_size)
                roots = [name.removesuffix("constants.pkl") for name in archive.namelist() if name.endswith("/constants.pkl")]
                if roots:
                    return TORCHSCRIPT, _read_torchscript(archive, roots[0])
        if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
            content = torch.load(path, map_location="cpu", weights_only=True)
            return TORCH, content if isinstance(content, dict) else {}
    except Exception as error:  # the parsers raise nearly anything at bytes they do not expect; the file is at fault
        raise HplError(f"{path}: {_reason(error)}") from error
    found = f"it begins with {head[:24]!r}" if head else "the file is empty"
    raise HplError(f"{path}: no weights; expected a TorchScript archive, a file of torch.save or a safetensors file, but {found}")


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Raise BadZipFile if a checksum is wrong, which torch.load does not ask for, or members are larger than the file."""
    if sum(member.file_size for member in archive.infolist()) > size:
        raise zipfile.BadZipFile("its members are compressed or overlap; expected them as torch.save writes them")
    if damaged := archive.testzip():
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def _reason(error: Exception) -> str:
    refused = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if refused:
        return (
            f"holds an object of {refused[1]}, which only the code that wrote it could rebuild, and such code is not run; "
            "expected tensors, numbers and text alone (save the state dict by itself)"
        )
    said = " ".join(str(error).split("WeightsUnpickler error:")[-1].split())  # without torch's advice to read it anyway
    return f"damaged, or no file of weights ({type(error).__name__}: {said[:160]})"


class _Module:
    """A module of a TorchScript archive: its attributes alone, none of its code."""

    attributes: dict = {}

    def __setstate__(self, attributes: object) -> None:
        self.attributes = attributes if isinstance(attributes, dict) else {}


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _first(value: object, *_: object) -> object:
    return value


class _TorchScriptUnpickler(pickle.Unpickler):
    """Reads data.pkl of a TorchScript archive, with a stand-in for each name that may occur there; any other is refused."""

    DTYPES = {
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "FloatStorage": torch.float32,
        "DoubleStorage": torch.float64,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ShortStorage": torch.int16,
        "CharStorage": torch.int8,
        "ByteStorage": torch.uint8,
        "BoolStorage": torch.bool,
    }

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(BytesIO(archive.read(f"{root}data.pkl")))  # read as a whole, so that its checksum is compared first
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in self.DTYPES:
            return self.DTYPES[name]
        if module == "torch.jit._pickle":  # lists with a type, and values with the name of theirs
            return _first
        known = {("torch._utils", "_rebuild_tensor_v2"): _tensor, ("collections", "OrderedDict"): dict}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return known[module, name]

    def persistent_load(self, saved: tuple) -> Tensor:
        _, dtype, key, *_ = saved
        return torch.frombuffer(bytearray(self.archive.read(f"{self.root}data/{key}")), dtype=dtype)


def _read_torchscript(archive: zipfile.ZipFile, root: str) -> dict[str, Tensor]:
    """Tensors of the modules in a TorchScript archive, by their dotted names.

    Not torch.jit.load: that compiles the archive's code, and runs the part of it that restores modules.
    """
    state, waiting, seen = {}, [("", _TorchScriptUnpickler(archive, root).load())], set()
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name, value in module.attributes.items():
            if isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor):
                state[f"{prefix}{name}"] = value
    return state
