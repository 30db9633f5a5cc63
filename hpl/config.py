"""Typed parameters. `load_params` checks all of params.yaml and lists every fault at once, with the nearest right key.

The sections are frozen pydantic models in strict mode: a string where a number belongs is a fault, not a guess. Meaning, unit and
source of each key stand beside it in params.yaml. YAML is read as version 1.2, where 1e-3 is a number.
"""

import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML, YAMLError

from hpl.files import HplError, run_stage
from hpl.tasks import TASKS

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Format = Literal["cuhk-pedes", "icfg-pedes", "rstpreid", "market-1501", "msmt17", "dukemtmc-reid", "table", "folders"]
_PROFILE_NAME, _NO_NAMES = r"[A-Za-z_][A-Za-z0-9_-]*", {"true", "false", "null", "inf", "nan"}


def _checked_profile_name(name: object) -> object:
    """Raise ValueError at a name that DVC cannot put into its commands and dotted keys, or that -S takes for no text."""
    if not isinstance(name, str) or not re.fullmatch(_PROFILE_NAME, name) or name.lower() in _NO_NAMES:
        raise ValueError(
            f"{name!r} is no name of a profile that DVC can run; expected the form ^{_PROFILE_NAME}$, such as my-shop, "
            f"and none of {', '.join(sorted(_NO_NAMES))}"
        )
    return name


_ProfileName = Annotated[str, BeforeValidator(_checked_profile_name)]
_TaskName = Annotated[str, Field(pattern=f"^({'|'.join(TASKS)})$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Synthetic(_Section):
    seed: Seed
    pretrain_people: Annotated[int, Field(ge=2)]
    pretrain_pictures: Count
    caption_train_people: Annotated[int, Field(ge=2)]
    caption_val_people: Count
    caption_test_people: Count
    caption_pictures: Count
    picture_train_people: Annotated[int, Field(ge=2)]
    picture_test_people: Count
    picture_pictures: Annotated[int, Field(ge=4)]
    num_cameras: Annotated[int, Field(ge=2, le=9)]
    same_side_overlap: NonNegativeInt
    cross_side_overlap: NonNegativeInt
    distractors: NonNegativeInt
    junk: NonNegativeInt


class Preprocess(_Section):
    on_bad_image: Literal["error", "skip"]
    strict: bool
    pack_pictures: bool
    link_candidate: Share
    link_correlation: Share
    test_share: Annotated[float, Field(ge=0, lt=1)]
    split_seed: Seed


class Model(_Section):
    task_routing: bool
    i2i_token_init: Literal["copy", "random"]
    i2i_token_noise: NonNegative


class Prompt(_Section):
    enabled: bool
    id_tokens: Count
    instance_tokens: Count


class Inversion(_Section):
    layers: Count
    heads: Count


class Loss(_Section):
    prompt_temperature: Positive
    normalize_features: bool
    sdm_temperature: Positive
    sdm_epsilon: Positive
    sdm_weight: NonNegative
    t2i_identity_weight: NonNegative
    triplet_weight: NonNegative
    i2i_identity_weight: NonNegative
    triplet: Literal["margin", "soft", "supcon"]
    supcon_temperature: Positive
    triplet_margin: Positive
    normalize_triplet: bool
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    i2i_batch: Literal["all", "i2i"]
    identity_prompt: NonNegative
    instance_align: NonNegative
    text_guided: bool
    vision_guided: bool
    prompt_reg: NonNegative


class Calibrate(_Section):
    prior: Annotated[float, Field(gt=0, lt=1)]
    likely: Annotated[float, Field(gt=0, lt=1)]
    possible: Annotated[float, Field(gt=0, lt=1)]
    false_alarm_rates: list[Annotated[float, Field(gt=0, le=0.5)]]

    @model_validator(mode="after")
    def _bands_are_apart(self) -> "Calibrate":
        if self.possible >= self.likely:
            raise ValueError(f"possible = {self.possible} is not below likely = {self.likely}; expected less")
        if len(set(self.false_alarm_rates)) < len(self.false_alarm_rates):
            raise ValueError(f"false_alarm_rates = {self.false_alarm_rates}; expected each rate once")
        return self


class DataSet(_Section):
    name: str | None = None
    format: Format
    folder: str
    use: Annotated[list[Literal["train", "test", "pretrain"]], Field(min_length=1)]
    official: bool = True
    camera_pattern: str | None = None

    @field_validator("folder")
    @classmethod
    def _stays_inside(cls, folder: str) -> str:
        if Path(folder).is_absolute() or ".." in Path(folder).parts or not folder.strip():
            raise ValueError("expected a folder inside data/raw/<profile>/, without '..'")
        return folder

    @model_validator(mode="after")
    def _fits_together(self) -> "DataSet":
        if len(set(self.use)) < len(self.use) or ("pretrain" in self.use and len(self.use) > 1):
            raise ValueError(f"use = {self.use}; expected [train], [test], [train, test] or [pretrain]")
        if self.camera_pattern is not None:
            if self.format != "folders":
                raise ValueError(f"camera_pattern is for format folders, not {self.format}")
            try:
                groups = re.compile(self.camera_pattern).groups
            except re.error as error:
                raise ValueError(f"camera_pattern = {self.camera_pattern!r}: {error}") from None
            if groups != 1:
                raise ValueError(f"camera_pattern = {self.camera_pattern!r}; expected one group, such as '_c(\\d+)'")
        return self

    @model_validator(mode="after")
    def _has_a_plain_name(self) -> "DataSet":
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]*", self.label):
            raise ValueError(
                f"the data set is called {self.label!r}; expected a `name` of letters, digits, spaces, '.', '_' and '-'"
            )
        return self

    @property
    def label(self) -> str:
        """What the set is called in manifests and reports."""
        return self.name or Path(self.folder).name


class Data(_Section):
    datasets: Annotated[list[DataSet], Field(min_length=1)]
    val_share: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> "Data":
        labels = [source.label for source in self.datasets]
        if len(set(labels)) < len(labels):
            raise ValueError(f"datasets are named {', '.join(labels)}; expected each name once (give one a `name`)")
        return self


class Input(_Section):
    height: Count
    width: Count
    context_length: Annotated[int, Field(ge=8, le=77)]


class ScratchBackbone(_Section):
    source: Literal["scratch"]
    embed_dim: Count
    vision_width: Count
    vision_layers: Count
    vision_heads: Count
    patch_size: Count
    stride: Count | None
    text_width: Count
    text_layers: Count
    text_heads: Count

    @model_validator(mode="after")
    def _fits_together(self) -> "ScratchBackbone":
        for tower in ("vision", "text"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads:
                raise ValueError(f"{tower}_heads = {heads} does not divide {tower}_width = {width}")
        if self.stride is not None and self.stride > self.patch_size:
            raise ValueError(f"stride = {self.stride} leaves gaps between patches; expected null or 1..{self.patch_size}")
        return self


class OpenClipBackbone(_Section):
    source: Literal["open_clip"]
    model: str
    weights: str
    download: bool
    stride: Count | None


class Pretrain(_Section):
    epochs: NonNegativeInt
    loader_workers: NonNegativeInt
    batch_size: Annotated[int, Field(ge=2)]
    lr: Positive
    warmup_epochs: NonNegative
    weight_decay: NonNegative


class Cache(_Section):
    batch_size: Count
    shard_rows: Count


class Construct(_Section):
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    inversion_lr: Positive
    identity_lr: Positive
    lr_decay: Annotated[float, Field(gt=0, le=1)]


class Train(_Section):
    epochs: Count
    t2i_batch: Annotated[int, Field(ge=2)]
    i2i_batch: Annotated[int, Field(ge=2)]
    num_instances: Annotated[int, Field(ge=2)]
    t2i_pace: Annotated[float, Field(gt=0, le=1)]
    i2i_pace: Annotated[float, Field(gt=0, le=1)]
    sampler: Literal["random", "spread"]
    start_lr: Positive
    peak_lr: Positive
    warmup_epochs: NonNegative
    optimizer: Literal["adam", "adamw"]
    moments: Literal["joint", "task"]
    eps: Positive
    weight_decay: NonNegative
    classifier_deviation: Positive
    classifier_lr_factor: Positive
    bias_lr_factor: Positive
    new_token_lr_factor: Positive
    diagnose_steps: NonNegativeInt
    train_inversion: bool
    erase_probability: Share
    pad: NonNegativeInt
    amp: bool
    compile: bool
    gradient_checkpointing: bool
    micro_batch: Count | None
    loader_workers: NonNegativeInt
    validate_epochs: NonNegativeInt
    selection: Literal["last", "best"]
    patience: NonNegativeInt

    @model_validator(mode="after")
    def _instances_divide(self) -> "Train":
        if self.i2i_batch % self.num_instances:
            raise ValueError(f"num_instances = {self.num_instances} does not divide i2i_batch = {self.i2i_batch}")
        return self

    @model_validator(mode="after")
    def _a_half_is_in_every_step(self) -> "Train":
        if max(self.t2i_pace, self.i2i_pace) < 1:
            raise ValueError(f"t2i_pace = {self.t2i_pace} and i2i_pace = {self.i2i_pace}; expected 1 for one of them")
        return self

    @model_validator(mode="after")
    def _what_selects_is_measured(self) -> "Train":
        if not self.validate_epochs and (self.selection == "best" or self.patience):
            chosen = "selection = best" if self.selection == "best" else f"patience = {self.patience}"
            raise ValueError(f"{chosen} needs validation figures; expected validate_epochs >= 1")
        return self


class Evaluate(_Section):
    batch_size: Count
    rank_list_length: Count
    flip: bool
    rerank: bool
    rerank_k1: Count
    rerank_k2: Count
    rerank_lambda: Share
    composed_weight: Share
    neck: Literal["before", "after"]
    i2i_tokens: Literal["own", "both"]

    @property
    def switched_on(self) -> dict[str, int]:
        """Name what is on beyond the plain protocol, each with 1."""
        chosen = {
            "rerank": self.rerank,
            "flip": self.flip,
            "neck": self.neck == "after",
            "both_tokens": self.i2i_tokens == "both",
        }
        return {name: 1 for name, is_on in chosen.items() if is_on}


PROMPT_WORDS = 8  # tokens of a prompt that are words, its begin and its end (hpl/prompts/template.py)


class Profile(_Section):
    data: Data
    input: Input
    backbone: Annotated[ScratchBackbone | OpenClipBackbone, Field(discriminator="source")]
    inversion: Inversion
    pretrain: Pretrain
    cache_features: Cache
    construct_prompts: Construct
    train: Train
    evaluate: Evaluate

    @model_validator(mode="after")
    def _pretrain_needs_pictures(self) -> "Profile":
        if self.pretrain.epochs and not any("pretrain" in source.use for source in self.data.datasets):
            raise ValueError(
                f"pretrain.epochs = {self.pretrain.epochs} needs a data set with use: [pretrain]; expected 0 epochs or such a set"
            )
        sides = self.input.height, self.input.width
        if self.train.pad >= min(sides):
            raise ValueError(
                f"train.pad = {self.train.pad} is no border of input.height x width = {sides[0]} x {sides[1]}; expected less"
            )
        if self.backbone.source == "scratch":
            patch = self.backbone.patch_size
            size = f"input.height x width = {sides[0]} x {sides[1]}"
            if min(sides) < patch:
                raise ValueError(f"backbone.patch_size = {patch} is more than a side of {size}")
            if self.backbone.embed_dim % self.inversion.heads:
                raise ValueError(
                    f"inversion.heads = {self.inversion.heads} does not divide backbone.embed_dim = {self.backbone.embed_dim}"
                )
            if self.backbone.stride in (None, patch) and any(side % patch for side in sides):
                raise ValueError(f"backbone.patch_size = {patch} does not divide {size}")
        return self


RowName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Row = dict[str, Any]  # dotted key of params.yaml -> value
Seeds = Annotated[list[Seed], Field(min_length=1)]
# What a row may change: all that acts after the backbone, which the cells share.
ROW_SECTIONS = ["tasks", "model", "prompt", "loss"]
ROW_PROFILE_SECTIONS = ["inversion", "cache_features", "construct_prompts", "train", "evaluate"]


class Ablation(_Section):
    seeds: Seeds
    sweep_seeds: Seeds
    rows: dict[RowName, Row]
    sweeps: dict[RowName, Row]

    @model_validator(mode="after")
    def _cells_differ(self) -> "Ablation":
        for name in ("seeds", "sweep_seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} = {getattr(self, name)}; expected each seed once")
        if both := sorted(set(self.rows) & set(self.sweeps)):
            raise ValueError(f"rows and sweeps both hold {', '.join(both)}; expected different names")
        return self

    @property
    def cells(self) -> list[tuple[str, int]]:
        """(row, seed) of every cell."""
        pairs = ((self.rows, self.seeds), (self.sweeps, self.sweep_seeds))
        return [(row, seed) for rows, seeds in pairs for row in rows for seed in seeds]

    @property
    def changes(self) -> dict[str, Row]:
        """Name of every row, sweeps included -> what it changes."""
        return self.rows | self.sweeps


class Params(_Section):
    profile: _ProfileName
    seed: Seed
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    num_processes: Count
    num_threads: Annotated[int, Field(ge=1, le=256)]
    num_workers: NonNegativeInt
    checkpoint_seconds: NonNegative
    synthetic: Synthetic
    preprocess: Preprocess
    model: Model
    prompt: Prompt
    loss: Loss
    calibrate: Calibrate
    tasks: Annotated[list[_TaskName], Field(min_length=1, max_length=len(TASKS))]
    ablation: Ablation
    profiles: dict[_ProfileName, Profile]

    @model_validator(mode="after")
    def _profile_exists(self) -> "Params":
        if self.profile not in self.profiles:
            raise ValueError(f"profile = {self.profile!r}; expected one of {', '.join(self.profiles)}")
        return self

    @model_validator(mode="after")
    def _prompt_fits(self) -> "Params":
        length, room = PROMPT_WORDS + self.prompt.id_tokens + self.prompt.instance_tokens, self.active.input.context_length
        if self.prompt.enabled and length > room:
            raise ValueError(
                f"prompt.id_tokens = {self.prompt.id_tokens} and prompt.instance_tokens = {self.prompt.instance_tokens} make "
                f"prompts of {length} tokens; expected at most profiles.{self.profile}.input.context_length = {room}"
            )
        return self

    @property
    def worker_processes(self) -> int:
        """`num_workers`, or for 0 one a core that this process may use."""
        every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.num_workers or every

    @property
    def active(self) -> Profile:
        """The profile that this run uses."""
        return self.profiles[self.profile]


def load_params(path: Path | str = "params.yaml", overrides: Sequence[str] = ()) -> Params:
    """Read and check the parameters. Raises HplError that lists every fault with its key, value and what is allowed.

    Args:
        overrides: changes as `dvc exp run -S` takes them, "loss.prompt_reg=0.5".
    """
    try:
        content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HplError(f"{path}: file not found; run from the project's root") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise HplError(f"{path}: malformed YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise HplError(f"{path}: expected a mapping of sections, found {type(content).__name__}")
    for override in overrides:
        _override(content, override)
    faults = _faults(content)
    faults += _row_faults(content, faults)
    if faults:
        raise HplError("\n  ".join([f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}", *faults]))
    return Params.model_validate(content)


def cell_params(params: Params, row: str, seed: int) -> Params:
    """Return the parameters of one cell of the ablation: those of params.yaml with the changes of `row`, and with `seed`.

    Raises HplError if there is no such row, or seed is not in range.
    """
    if row not in params.ablation.changes:
        raise HplError(f"ablation.rows.{row}: no such row; expected one of {', '.join(params.ablation.changes)}")
    content = params.model_dump()
    for key, value in {**params.ablation.changes[row], "seed": seed}.items():
        _set(content, key, value)
    if faults := _faults(content):
        raise HplError("\n  ".join([f"ablation.rows.{row}, seed {seed}:", *faults]))
    return Params.model_validate(content)


def _faults(content: dict) -> list[str]:
    try:
        Params.model_validate(content)
    except ValidationError as error:
        return [_describe(fault, content) for fault in error.errors()]
    return []


def _row_faults(content: dict, known: list[str]) -> list[str]:
    """List what is wrong with the parameters that the ablation's rows result in, beyond what is wrong without them."""
    faults = []
    ablation = content.get("ablation")
    for group in ("rows", "sweeps"):
        rows = ablation.get(group) if isinstance(ablation, dict) else None
        for name, changes in rows.items() if isinstance(rows, dict) else ():
            place = f"ablation.{group}.{name}"
            if not isinstance(changes, dict):
                continue  # among the known faults
            changed = dict(content)
            for key, value in changes.items():
                if _is_common(str(key)):
                    expected = f"{', '.join(ROW_SECTIONS)} or profiles.<profile>.{'|'.join(ROW_PROFILE_SECTIONS)}"
                    faults.append(f"{place}: {key}: the same in all cells; expected a key of {expected}")
                    continue
                try:
                    _set(changed, str(key), value)
                except HplError as error:
                    faults.append(f"{place}: {error}")
            faults += [f"{place}: {fault}" for fault in _faults(changed) if fault not in known]
    return faults


def _is_common(key: str) -> bool:
    """Tell whether a key is a known one that no row may change; a misspelt one is told as an unknown key."""
    section, *rest = key.split(".")
    if section == "profiles" and len(rest) > 1:
        return rest[1] in Profile.model_fields and rest[1] not in ROW_PROFILE_SECTIONS
    return section in Params.model_fields and section not in ROW_SECTIONS


def _override(content: dict, override: str) -> None:
    """Set one key in place, whether it is known or not: what is wrong with it is told with all other faults."""
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise HplError(f"{override!r}: expected key=value, such as loss.prompt_reg=0.5")
    try:
        _set(content, key, YAML(typ="safe", pure=True).load(value))
    except YAMLError:
        raise HplError(f"{override!r}: malformed value; expected YAML such as 0.5, true or [t2i]") from None


def _set(content: dict, key: str, value: object) -> None:
    """Set a dotted key, known or not, in copies of the sections on its way: YAML lets others be the same object."""
    *sections, name = key.split(".")
    for section in sections:
        inner = content.get(section, {})
        if not isinstance(inner, dict):
            raise HplError(f"{key}={value}: {section} is a value, not a section")
        content[section] = dict(inner)
        content = content[section]
    content[name] = value


def _describe(fault: Mapping[str, Any], content: dict) -> str:
    location = [str(part) for part in fault["loc"] if part not in ("scratch", "open_clip", "[key]")]
    location = [part if part.isprintable() else repr(part) for part in location]
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        nearest = _nearest(location, content)
        return f"{key}: unknown key" + (f"; did you mean {nearest}?" if nearest else "")
    if fault["type"] == "missing":
        return f"{key}: missing key"
    if fault["type"] == "value_error":
        return f"{key + ': ' if key else ''}{fault['ctx']['error']}"
    message = fault["msg"].replace("Input should be", "expected").replace("String should match pattern", "expected the form")
    return f"{key} = {fault['input']!r}: {message}"


def _nearest(location: list[str], content: dict) -> str | None:
    """Find the known key most like the last part of `location`: in its own section first, then anywhere."""
    *section, name = location
    known = _known_keys(Params)
    if location[0] == "profiles" and len(location) > 2:
        known = {("profiles", section[1], *rest[2:]) for rest in known if rest[0] == "profiles" and len(rest) > 2} | known
    here = [key[-1] for key in known if list(key[:-1]) == section]
    if match := difflib.get_close_matches(name, here, n=1):
        return ".".join([*section, match[0]])
    anywhere = {key[-1]: key for key in sorted(known, reverse=True)}
    if match := difflib.get_close_matches(name, list(anywhere), n=1):
        return ".".join(anywhere[match[0]])
    return None


def _known_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """List the dotted keys of a section and all below it; a profile's name stands as '<profile>'."""
    keys = set()
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        keys.add(path)
        for inner, extra in _inner_models(field.annotation):
            keys |= _known_keys(inner, (*path, *extra))
    return keys


def _inner_models(annotation: object) -> list[tuple[type[BaseModel], tuple[str, ...]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, ())]
    extra = ("<profile>",) if getattr(annotation, "__origin__", None) is dict else ()
    return [(model, extra) for part in getattr(annotation, "__args__", ()) for model, _ in _inner_models(part)]


def _main() -> None:
    params = load_params(overrides=sys.argv[1:])
    print(f"params.yaml{' with ' if sys.argv[1:] else ''}{', '.join(sys.argv[1:])} is sound; profile {params.profile}")


if __name__ == "__main__":
    run_stage(_main)
