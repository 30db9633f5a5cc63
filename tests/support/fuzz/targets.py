"""What is fuzzed. A target writes one mutated input and has hpl read it; it raises Wrong where a second reader disagrees.

`TARGETS` names functions of a folder, which make a sound input once and return what makes and tries one case.
"""

import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image, ImageOps
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torch import nn

from hpl.backbones.towers import ImageTower, TextTower
from hpl.backbones.trained import load_trained, save_trained
from hpl.backbones.weight_files import read_weight_file
from hpl.backbones.weights import build_clip, create_backbone, load_backbone, save_backbone
from hpl.config import Inversion, OpenClipBackbone, Prompt, load_params
from hpl.files import HplError
from hpl.manifests.shards import ShardReader
from hpl.manifests.tables import Manifests
from hpl.pictures import decode_bytes
from hpl.prompts.cache import FeatureCache
from hpl.prompts.learned import LearnedPrompts, load_prompts, save_prompts
from hpl.readers.build import READERS
from hpl.readers.decoding import Store, fill_store, take
from hpl.retrieval.sets import read_test_sets, read_validation_sets
from hpl.runtime.checkpoint import Checkpoint
from tests.support.fuzz import reference
from tests.support.fuzz.mutate import (
    ODD_TEXTS,
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_safetensors,
    mutate_structure,
    mutate_zip,
    odd_value,
)
from tests.support.imports import ROOT
from tests.support.native_sets import CUHK, build
from tests.support.pictures import picture, save
from tests.support.tiny import SIZE, TINY

Case = Callable[[random.Random], None]
SMALL = {**TINY, "text_cfg": {**TINY["text_cfg"], "vocab_size": 50}}


class Wrong(Exception):
    """What hpl read is not what is there."""


def expect(condition: object, text: str) -> None:
    if not condition:
        raise Wrong(text)


# Data sets: what a reader yields


def compare(kind: str, root: Path, expected: Callable[[], list[reference.Record]]) -> None:
    """Have both readers read: the same records, or both refuse; the path of each record stays in the folder."""
    try:
        wanted = sorted(expected(), key=repr)
    except reference.Refused:
        wanted = None
    try:
        found = sorted((_record(record) for record in READERS[kind](root).records), key=repr)
    except HplError as error:
        expect(wanted is None, f"refused ({error}), though the second reader reads {len(wanted or ())} records")
        raise
    expect(wanted is not None, f"{len(found)} records of what the second reader refuses, such as {found[:1]}")
    expect(found == wanted, f"records differ: {[pair for pair in zip(found, wanted or ()) if pair[0] != pair[1]][:1]}")
    for path, *_ in found:
        expect(os.path.abspath(root / path).startswith(f"{root.absolute()}/"), f"{path!r} leaves {root}")


def _record(record: object) -> reference.Record:
    keys = ("path", "split", "role", "person", "source_pid", "camid", "captions", "anonymous")
    return tuple(getattr(record, key) for key in keys)


def caption_set(kind: str, annotation: str, path_key: str, first_id: int) -> Callable[[Path], Case]:
    def prepare(folder: Path) -> Case:
        root = folder / kind
        (root / "imgs").mkdir(parents=True)
        content = [
            {
                path_key: f"a/{n}.png",
                "id": first_id + n // 2,
                "split": split,
                "captions": ["A man in red.", f"He walks \u7684 {n}."],
            }
            for n, split in enumerate(["train", "Train", "val", "test", "TEST", "test"])
        ]

        def case(rng: random.Random) -> None:
            (root / annotation).write_bytes(mutate_json(content, rng))
            compare(kind, root, lambda: reference.caption_set(root, annotation, path_key, first_id))

        return case

    return prepare


def msmt17_lists(folder: Path) -> Case:
    root, names = folder / "msmt17", ("train", "val", "query", "gallery")
    for part in ("train", "test"):
        (root / part).mkdir(parents=True)
    lines = [f"{pid:04d}/{pid:04d}_000_{cam:02d}_0303morning_0015_{cam}.jpg {pid}" for pid in (0, 1, 12) for cam in (1, 15)]

    def case(rng: random.Random) -> None:
        changed = rng.choice(names)
        for name in names:
            text = "\n".join(lines) + "\n"
            (root / f"list_{name}.txt").write_bytes(mutate_lines(text, rng, " ") if name == changed else text.encode())
        if rng.random() < 0.05:
            (root / f"list_{changed}.txt").unlink()
        compare("msmt17", root, lambda: reference.lists(root))

    return case


def market_names(folder: Path) -> Case:
    root, parts = folder / "market", ("bounding_box_train", "query", "bounding_box_test")
    names = ["0002_c1s1_000451_03.jpg", "-1_c3s1_000001_00.jpg", "0000_c4s6_000002_00.jpg", "0007_c2s1_000001_00.jpg.jpg"]

    def case(rng: random.Random) -> None:
        shutil.rmtree(root, ignore_errors=True)
        for part in parts:
            (root / part).mkdir(parents=True)
            for name in rng.sample(names, rng.randrange(1, 5)):
                if rng.random() < 0.15:
                    name = file_name(rng, name)
                elif part != "bounding_box_test":
                    name = names[0]
                (root / part / name).touch()
        compare("market-1501", root, lambda: reference.market(root))

    return case


def file_name(rng: random.Random, name: str) -> str:
    """An odd name that a file system takes."""
    changed = mutate_bytes(name.encode(), rng) if rng.random() < 0.5 else rng.choice(ODD_TEXTS).encode(errors="surrogatepass")
    changed = changed.replace(b"/", b"_").replace(b"\0", b"_")[:200]
    return os.fsdecode(changed if changed not in (b"", b".", b"..") else b"x")


def csv_table(folder: Path) -> Case:
    root = folder / "csv"
    root.mkdir()
    rows = ["path,pid,camid,split,caption,note", 'a/1.jpg,anna,1,train,"A man, in ""red"".",x', "a/2.jpg,anna,2,train,He walks.,"]
    rows += ["b/1.jpg,7,1,test,,y", "b/2.jpg,7.0,3,query,A woman.,", "c/1.jpg,-1,2,gallery,,", "c/2.jpg,distractor,,gallery,,"]

    def case(rng: random.Random) -> None:
        (root / "table.csv").write_bytes(mutate_lines("\n".join(rows) + "\n", rng, ","))
        compare("table", root, lambda: reference.csv_table(root / "table.csv"))

    return case


def parquet_table(folder: Path) -> Case:
    root = folder / "parquet"
    root.mkdir()
    columns = {"path": [f"a/{n}.jpg" for n in range(6)], "pid": [1, 1, 2, 2, 3, 3], "camid": [1, 2, 1, 2, 1, 2]}
    columns |= {
        "caption": ["A man.", None, "A woman.", "", " x ", "y"],
        "split": ["train", "TEST", "query", "gallery", "val", "test"],
    }

    def case(rng: random.Random) -> None:
        file, changed = root / "table.parquet", {name: list(values) for name, values in columns.items()}
        for _ in range(rng.randrange(3)):
            name = rng.choice(list(changed))
            kind = rng.randrange(6)
            if kind == 0:
                changed[rng.choice(["PATH", "pids", "Camid ", "x", *ODD_TEXTS])] = changed.pop(name)
            elif kind == 1:
                changed[name] = [rng.choice([1.0, 1.5, float("nan"), -1.0, 1e300, None]) for _ in range(6)]
            elif kind == 2:
                changed[name] = [rng.choice([True, None]) for _ in range(6)]
            elif kind == 3:
                changed[name][rng.randrange(6)] = None
            elif kind == 4:
                changed[name] = [rng.choice(["a", *ODD_TEXTS]).encode(errors="replace").decode() for _ in range(6)]
            else:
                changed[name] = rng.choice([[b"a"] * 6, [["a"]] * 6, [pd.Timestamp(0)] * 6, [None] * 6, [{"a": 1}] * 6])
        try:
            table = pa.table(changed)
        except (pa.ArrowException, UnicodeEncodeError):
            table = pa.table(columns)
        if rng.random() < 0.2:
            table = pa.table([*table.columns, table.columns[0]], names=[*table.column_names, rng.choice(table.column_names)])
        out = io.BytesIO()
        pq.write_table(table, out, compression=rng.choice(["snappy", "none", "zstd"]))
        data = out.getvalue()
        file.write_bytes(mutate_bytes(data, rng) if rng.random() < 0.5 else data)
        compare("table", root, lambda: reference.parquet_table(file))

    return case


def folders(folder: Path) -> Case:
    root, content = folder / "folders", b"\xff\xd8\xff"

    def case(rng: random.Random) -> None:
        shutil.rmtree(root, ignore_errors=True)
        tops = rng.choice([["train", "test"], ["train", "Query", "gallery"], ["anna", "ben", "-1"], ["all"], ["anna"]])
        for top in tops:
            for person in rng.choice([[""], ["1", "2", "distractors"], ["p"]]):
                home = root / (file_name(rng, top) if rng.random() < 0.05 else top)
                home /= file_name(rng, person) if rng.random() < 0.05 else person
                home.mkdir(parents=True, exist_ok=True)
                for name in rng.sample(["1.jpg", "2.PNG", "3", "notes.md", ".hidden.jpg", "Thumbs.db"], rng.randrange(5)):
                    file = home / (file_name(rng, name) if rng.random() < 0.1 else name)
                    if not file.is_dir():
                        file.write_bytes(content if rng.random() < 0.9 else b"")
                if rng.random() < 0.4:
                    (home / rng.choice(["1.txt", "2.TXT", "4.txt"])).write_bytes(mutate_lines("A man.\n\nHe walks.\n", rng, " "))
                if rng.random() < 0.1:
                    (home / "deeper").mkdir(exist_ok=True)
                    (home / "deeper" / "5.jpg").write_bytes(content)
        compare("folders", root, lambda: reference.folders(root))

    return case


def preprocess(folder: Path) -> Case:
    """The whole stage on a mutated annotation: the table of pictures is a part of the second reader's, its captions theirs."""
    content = [
        {"file_path": f"{n}.png", "id": 1 + n // 2, "split": split, "captions": [f"A man {n}."]}
        for n, split in enumerate(["train"] * 4 + ["test"] * 4)
    ]
    root = folder / "raw" / "CUHK-PEDES"
    for number in range(8):
        save(picture(number), root / "imgs" / f"{number}.png")
    save(picture(9), folder / "raw" / "outside.png")
    (root / "reid_raw.json").write_text(json.dumps(content))
    build(folder / "raw", folder / "out", datasets=(CUHK,), store=folder / "store")

    def case(rng: random.Random) -> None:
        (root / "reid_raw.json").write_bytes(mutate_json(content, rng))
        tables = build(folder / "raw", folder / "out", datasets=(CUHK,), store=folder / "store", on_bad_image="skip")
        wanted = reference.caption_set(root, "reid_raw.json", "file_path", 1)
        there = {(path, person) for path, _, _, person, *_ in wanted if (root / path).is_file()}
        found = tables.images[tables.images["person"] != ""]
        expect(set(zip(found["path"], found["person"])) == there, "the table of pictures differs")
        said = {(path, text) for path, *_, captions, _ in wanted for text in captions if (root / path).is_file()}
        paths = tables.images["path"].loc[tables.captions["image_id"]]
        expect(set(zip(paths, tables.captions["caption"])) == said, "the table of captions differs")

    return case


# Pictures


def pictures(folder: Path) -> Case:
    base = picture(1, (24, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[bytes] = []
    for image, kind, options in (
        (base, "JPEG", {"quality": 90}), (base, "JPEG", {"progressive": True, "exif": exif}), (base.convert("CMYK"), "JPEG", {}),
        (base.convert("L"), "JPEG", {}), (base, "PNG", {}), (base.convert("P"), "PNG", {}), (base.convert("RGBA"), "PNG", {}),
        (Image.fromarray(np.arange(960, dtype=np.uint16).reshape(40, 24) * 60), "PNG", {}), (base, "BMP", {}),
        (base.convert("P"), "GIF", {}), (base, "GIF", {"save_all": True, "append_images": [picture(2, (24, 40))]}),
        (base, "TIFF", {}), (base, "TIFF", {"compression": "tiff_lzw"}), (base, "WEBP", {}), (base, "PPM", {}),
    ):  # fmt: skip
        out = io.BytesIO()
        image.save(out, kind, **options)
        made.append(out.getvalue())
    png = io.BytesIO()
    Image.new("1", (8, 8)).save(png, "PNG")
    for width, height in ((60000, 60000), (2**31 - 1, 1), (0, 0), (7000, 7001)):  # headers that promise more than there is
        made.append(png.getvalue()[:16] + struct.pack(">2I", width, height) + png.getvalue()[24:])

    def case(rng: random.Random) -> None:
        data = rng.choice(made)
        data = mutate_bytes(data, rng)
        if rng.random() < 0.2:  # where the header is
            data = data[:2] + mutate_bytes(data[2:40], rng) + data[40:]
        pixels = decode_bytes(data, "a picture")
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                image = ImageOps.exif_transpose(image)
                mode, wanted = image.mode, np.asarray(image.convert("RGB"), np.float32)
        except Exception as error:
            raise Wrong(f"pixels {pixels.shape} of what Pillow refuses ({error})") from None
        expect(pixels.shape == wanted.shape, f"pixels {pixels.shape}; Pillow has {wanted.shape}")
        if not mode.startswith("I"):  # Pillow clips 16 bits, hpl scales them
            expect(np.abs(pixels - wanted).mean() < 3, f"pixels differ by {np.abs(pixels - wanted).mean():.1f}")

    return case


# Weights


def _tensors(generator: torch.Generator) -> dict[str, torch.Tensor]:
    shapes = {"visual.proj": (4, 3), "ln_final.weight": (4,), "logit_scale": (), "visual.conv1.weight": (2, 3, 2, 2)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    settings = {"input_resolution": 224, "context_length": 77, "vocab_size": 50}
    tensors |= {name: torch.tensor(value) for name, value in settings.items()}
    return tensors | {"half": tensors["visual.proj"].half(), "count": torch.arange(5)}


def weights_safetensors(folder: Path) -> Case:
    file = folder / "w.safetensors"
    save_file(_tensors(torch.Generator().manual_seed(0)), file)
    sound = file.read_bytes()
    sizes = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "F64": "<f8", "I32": "<i4", "U8": "u1", "I8": "i1"}

    def case(rng: random.Random) -> None:
        data = mutate_safetensors(sound, rng)
        file.write_bytes(data)
        state = read_weight_file(file).state
        length = int.from_bytes(data[:8], "little")
        header = {name: entry for name, entry in json.loads(data[8 : 8 + length]).items() if name != "__metadata__"}
        expect(set(state) <= set(header), f"tensors {sorted(set(state) - set(header))} that the header has not")
        for name, value in state.items():
            entry = header[name]
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            if entry["dtype"] in sizes:
                wanted = np.frombuffer(data[first:last], sizes[entry["dtype"]]).reshape(entry["shape"])
                expect(np.array_equal(value.numpy(), wanted, equal_nan=True), f"{name} differs")

    return case


def weights_torch(folder: Path) -> Case:
    file, tensors = folder / "w.pt", _tensors(torch.Generator().manual_seed(0))
    made = []
    for content in (tensors, {"state_dict": tensors, "epoch": 3}, {"model": {f"module.{k}": v for k, v in tensors.items()}}):
        torch.save(content, file)
        made.append(file.read_bytes())
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    old = file.read_bytes()

    def case(rng: random.Random) -> None:
        zipped = rng.random() < 0.8
        data = mutate_zip(rng.choice(made), rng) if zipped else mutate_bytes(old, rng)
        file.write_bytes(data)
        state = read_weight_file(file).state
        if zipped:
            _all_values_are_stored(data, state)

    return case


def _all_values_are_stored(data: bytes, state: dict[str, torch.Tensor]) -> None:
    """The archive's checksums hold, and the values of each tensor stand in one of its members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        try:
            members = [archive.read(name) for name in archive.namelist()]
        except Exception as error:
            raise Wrong(f"tensors of an archive whose checksums are wrong ({error})") from None
    for name, value in state.items():
        if value.is_contiguous():
            held = value.numpy().tobytes() if value.dtype != torch.bfloat16 else value.view(torch.int16).numpy().tobytes()
            expect(any(held in member for member in members), f"the values of {name} are nowhere in the file")


class _Holder(nn.Module):
    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name.replace(".", "_").replace("half", "float16"), value)
        self.inner = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def weights_torchscript(folder: Path) -> Case:
    file, made = folder / "w.jit", []
    torch.manual_seed(0)
    for resolution in (224, float("nan"), 1j, 10**12, [224, 224]):
        tensors = _tensors(torch.Generator().manual_seed(0)) | {"input_resolution": torch.tensor(resolution)}
        torch.jit.script(_Holder(tensors)).save(str(file))
        made.append(file.read_bytes())

    def case(rng: random.Random) -> None:
        sound = made[0] if rng.random() < 0.7 else rng.choice(made)
        data = mutate_zip(sound, rng) if rng.random() < 0.9 else sound
        file.write_bytes(data)
        _all_values_are_stored(data, read_weight_file(file).state)

    return case


def given_weights(folder: Path) -> Case:
    """Weights whose tensors are changed, put into a CLIP: the tensors of the file, or a refusal."""
    state, file = _small_clip().state_dict(), folder / "given.pt"
    open_clip.factory._MODEL_CONFIGS["small"] = SMALL
    choice = OpenClipBackbone(source="open_clip", model="small", weights=str(file), download=False, stride=None)

    def case(rng: random.Random) -> None:
        changed = dict(state)
        for _ in range(rng.randrange(3)):
            name = rng.choice(list(changed))
            value = changed[name]
            changed[name] = rng.choice([
                lambda x: x.half(), lambda x: x.double(), lambda x: x.long(), lambda x: x * float("nan"), lambda x: x.to_sparse(),
                lambda x: x.flatten(), lambda x: x[..., None], lambda x: torch.zeros(1).expand(10**9),
                lambda x: x.to(torch.complex64),
                lambda x: x.new_zeros(0), lambda x: torch.cat([x.reshape(1, -1)] * 2), lambda x: x.to("meta"), lambda x: "text",
                lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8), lambda x: nn.Parameter(x),
                lambda x: x.reshape(x.shape[::-1]) if x.dim() else x, lambda x: x.bool(), lambda x: torch.tensor(10**6),
            ])(value)  # fmt: skip
            if rng.random() < 0.3:
                names = [f"module.{name}", f"text.{name}", "input_resolution", "x", f"base_model.{name}", "vocab_size"]
                changed[rng.choice(names)] = changed.pop(name)
            if rng.random() < 0.1:
                changed = {rng.choice(["state_dict", "model", "x"]): changed}
                break
        torch.save(changed, file)
        model, _, _ = create_backbone(choice, SIZE)
        for name, value in model.state_dict().items():
            if isinstance(held := changed.get(name), torch.Tensor) and held.shape == value.shape:
                expect(torch.equal(held.float().nan_to_num(7), value.nan_to_num(7)), f"{name} differs")

    return case


# Parameters


def params(folder: Path) -> Case:
    text = (ROOT / "params.yaml").read_text()
    content = json.loads(json.dumps(YAML(typ="safe", pure=True).load(text)))
    file = folder / "params.yaml"

    def case(rng: random.Random) -> None:
        if rng.random() < 0.5:
            given = mutate_structure(content, rng)
            try:
                file.write_text(json.dumps(given, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
            except UnicodeEncodeError:
                file.write_text(json.dumps(given))
        else:
            file.write_bytes(mutate_bytes(text.encode(), rng))
        read = load_params(file).model_dump()
        try:
            given = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise Wrong(f"parameters of what another reader of YAML refuses ({error})") from None
        expect(set(given) <= set(read), "a section is lost")
        _same(_merged(given), read, "")

    return case


def _merged(given: object) -> object:
    """Do as `<<` says, which the other reader of YAML leaves as a key."""
    if isinstance(given, dict):
        given = {key: _merged(value) for key, value in given.items()}
        return (given.pop("<<") | given) if isinstance(given.get("<<"), dict) else given
    return [_merged(value) for value in given] if isinstance(given, list) else given


def _same(given: object, read: object, place: str) -> None:
    """Each value that the file has is that which was read; the file's are texts."""
    if isinstance(given, dict):
        expect(isinstance(read, dict) and set(given) <= set(map(str, read)), f"{place}: {given!r} was read as {read!r}")
        for key, value in given.items():
            _same(value, {str(name): inner for name, inner in read.items()}[key], f"{place}.{key}")
    elif isinstance(given, list):
        expect(isinstance(read, list) and len(given) == len(read), f"{place}: {given!r} was read as {read!r}")
        for number, (one, other) in enumerate(zip(given, read)):
            _same(one, other, f"{place}[{number}]")
    elif isinstance(read, bool) or read is None:
        words = {True: ("true",), False: ("false",), None: ("null", "", "~")}
        expect(given.lower() in words[read], f"{place}: {given!r} was read as {read!r}")
    elif isinstance(read, str):
        expect(given == read, f"{place}: {given!r} was read as {read!r}")
    else:
        same = float(int(given, 0) if given.startswith(("0x", "0o")) else given) == read
        expect(same, f"{place}: {given!r} was read as {read!r}")


# Kept state


def resume_state(folder: Path) -> Case:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    with Checkpoint(folder / "state", 0) as checkpoint:
        checkpoint.save(3, 2, model=model, optimizer=optimizer)
        sound = checkpoint.file.read_bytes()
    wanted = {name: value.clone() for name, value in model.state_dict().items()}

    def case(rng: random.Random) -> None:
        (folder / "state").mkdir(exist_ok=True)
        (folder / "state" / "state.pt").write_bytes(mutate_zip(sound, rng))
        fresh = nn.Linear(6, 4)
        began = {name: value.clone() for name, value in fresh.state_dict().items()}
        with Checkpoint(folder / "state", 0) as checkpoint:
            at = checkpoint.load(model=fresh, optimizer=torch.optim.AdamW(fresh.parameters()))
        expect(at in ((1, 0), (3, 2)), f"goes on from {at}")
        expected = began if at == (1, 0) else wanted
        expect(all(torch.equal(value, expected[name]) for name, value in fresh.state_dict().items()), "another state was loaded")

    return case


def resume_block(folder: Path) -> Case:
    array = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float16)
    with Checkpoint(folder / "blocks", 0) as checkpoint:
        checkpoint.block("pictures-0", lambda: array)
        (file,) = checkpoint.folder.glob("pictures-0*")
        sound, name = file.read_bytes(), file.name

    def case(rng: random.Random) -> None:
        (folder / "blocks").mkdir(exist_ok=True)
        (folder / "blocks" / name).write_bytes(mutate_bytes(sound, rng))
        with Checkpoint(folder / "blocks", 0) as checkpoint:
            found = checkpoint.block("pictures-0", lambda: array)
        expect(found.dtype == array.dtype and np.array_equal(found, array), "another block was loaded")

    return case


def store(folder: Path) -> Case:
    files = pd.Series([str(save(picture(n), folder / "pictures" / f"{n}.png")) for n in range(5)])
    pack = np.array([True, False, True, True, False])
    shutil.rmtree(folder / "sound", ignore_errors=True)
    kept = Store(folder / "sound")
    digests, _ = fill_store(files, pack, (24, 12), 1, kept)
    wanted = _stored(kept, digests, pack)

    def case(rng: random.Random) -> None:
        home = folder / "damaged"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(folder / "sound", home)
        file = rng.choice(sorted(home.iterdir()))
        if rng.random() < 0.1:
            file.unlink()
        elif file.suffix == ".parquet" and rng.random() < 0.5:
            pd.DataFrame({"file_sha256": ["x"], "pack_row": [rng.choice([-1, 0, 7])]}).to_parquet(file)
        else:
            file.write_bytes(mutate_bytes(file.read_bytes(), rng))
        os.utime(home)
        used = Store(home)
        digests, _ = fill_store(files, pack, (24, 12), 1, used)
        found = _stored(used, digests, pack)
        for name, value in wanted.items():
            expect(np.array_equal(found[name], value), f"{name} of the pictures differ")

    return case


def _stored(kept: Store, digests: pd.Series, pack: np.ndarray) -> dict[str, np.ndarray]:
    rows = kept.rows(digests)
    part = rows["part"].to_numpy()
    facts = {name: rows[name].to_numpy(object) for name in ("file_sha256", "width", "height", "sha256")}
    facts["fingerprints"] = take(kept.fingerprints, part, rows["row"].to_numpy())
    return facts | {"copies": take(kept.packed, part[pack], rows["pack_row"].to_numpy()[pack])}


# What one stage wrote for the next


def manifests(folder: Path) -> Case:
    root = folder / "raw"
    _two_sets(root)
    build(root, folder / "made", val_share=0.3)
    sound = folder / "made" / "manifests"

    def case(rng: random.Random) -> None:
        home = folder / "changed"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(sound, home)
        file = home / rng.choice(["images.parquet", "captions.parquet", "datasets.json", "images.parquet"])
        _damage(file, rng)
        tables = Manifests(home)
        wanted = {name: pq.read_table(home / f"{name}.parquet") for name in ("images", "captions")}
        for name, table in (("images", tables.images), ("captions", tables.captions)):
            for column in wanted[name].column_names:
                if column in table:
                    expect(table[column].tolist() == wanted[name][column].to_pylist(), f"{name}.{column} differs")
        for each in (*read_test_sets(tables), *read_validation_sets(tables)):
            for task in each.tasks:
                each.queries_and_gallery(task)
        tables.files(tables.images)

    return case


def _two_sets(root: Path) -> None:
    content = []
    for number in range(16):
        split = "train" if number < 8 else "test"
        save(picture(number), root / "CUHK-PEDES" / "imgs" / f"{number}.png")
        content.append({"file_path": f"{number}.png", "id": 1 + number // 2, "split": split, "captions": [f"A man {number}."]})
    (root / "CUHK-PEDES" / "reid_raw.json").write_text(json.dumps(content))
    for number in range(12):
        part = ("bounding_box_train", "query", "bounding_box_test")[number // 4]
        pid = 1 + number % 4 if part == "bounding_box_train" else 10 + number % 4
        save(picture(100 + number), root / "Market-1501" / part / f"{pid:04d}_c{1 + number // 4}s1_{number:06d}_00.jpg")


def _damage(file: Path, rng: random.Random) -> None:
    """Bytes, or structure: columns and rows of a table, parts of JSON."""
    kind = rng.randrange(10)
    if kind < 3:
        file.write_bytes(mutate_bytes(file.read_bytes(), rng))
    elif file.suffix == ".json":
        file.write_bytes(mutate_json(json.loads(file.read_text()), rng))
    else:
        table = pd.read_parquet(file)
        column = rng.choice(list(table.columns))
        if kind == 3:
            table = table.drop(columns=column)
        elif kind == 4:
            table = table.rename(columns={column: rng.choice(["x", column.upper()])})
        elif kind == 5:
            table = table.iloc[: rng.randrange(len(table))]
        elif kind == 6:
            table[column] = table[column].astype("str")
        elif kind == 7:
            table[column] = rng.choice([1.5, None, -7, 10**12, "x", True])
        else:
            values = table[column].tolist()
            values[rng.randrange(len(values))] = odd_value(rng) if rng.random() < 0.5 else rng.choice(values)
            table[column] = pd.Series(values, dtype=object)
        try:
            table.to_parquet(file, index=False)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError):
            file.write_bytes(b"")


def feature_cache(folder: Path) -> Case:
    sound, rng_ = folder / "features", np.random.default_rng(0)
    sound.mkdir()
    np.save(sound / "image_tokens-00000.npy", rng_.normal(size=(4, 3, 8)).astype(np.float16))
    np.save(sound / "image_tokens-00001.npy", rng_.normal(size=(2, 3, 8)).astype(np.float16))
    np.save(sound / "text_tokens-00000.npy", rng_.normal(size=(12, 8)).astype(np.float16))
    pd.DataFrame({"image_id": range(6), "pid": [1, 1, 2, 2, 3, 3]}).to_parquet(sound / "pictures.parquet", index=False)
    spans = {"picture": [0, 1, 3], "start": [0, 4, 8], "length": [4, 4, 4]}
    pd.DataFrame(spans).to_parquet(sound / "captions.parquet", index=False)

    def case(rng: random.Random) -> None:
        home = folder / "changed"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(sound, home)
        file = rng.choice(sorted(home.iterdir()))
        if rng.random() < 0.1:
            file.unlink()
        elif file.suffix == ".npy" and rng.random() < 0.5:
            np.save(file, rng_.normal(size=rng.choice([(4, 3, 8), (4, 2, 8), (3,), ()])).astype(rng.choice(["f2", "f4", "U3"])))
        else:
            _damage(file, rng) if file.suffix == ".parquet" else file.write_bytes(mutate_bytes(file.read_bytes(), rng))
        cache = FeatureCache(home)
        batch = cache.batch(np.arange(len(cache.pictures)), np.random.default_rng(0), torch.device("cpu"))
        for number in range(len(batch.text_tokens_TLD)):
            end = int(batch.ends_T[number])
            expect(not batch.text_tokens_TLD[number, end + 1 :].any(), "features behind the end of text")

    return case


def packed_pictures(folder: Path) -> Case:
    sound = folder / "pictures"
    sound.mkdir()
    for number, rows in enumerate((4, 2)):
        np.save(sound / f"pictures-{number:05d}.npy", np.full((rows, 3, 4, 2), number, np.uint8))

    def case(rng: random.Random) -> None:
        home = folder / "changed"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(sound, home)
        file = rng.choice(sorted(home.iterdir()))
        file.write_bytes(mutate_bytes(file.read_bytes(), rng))
        reader = ShardReader(home, "pictures")
        wanted = np.concatenate([np.load(part) for part in sorted(home.iterdir())])
        expect(np.array_equal(reader[np.arange(len(reader))], wanted), "rows differ")

    return case


def _small_clip() -> nn.Module:
    torch.manual_seed(0)
    return build_clip(SMALL).eval()


def model_folder(folder: Path) -> Case:
    sound, clip = folder / "model", _small_clip()
    sound.mkdir()
    save_trained(sound, ImageTower(clip, task_routing=True), TextTower(clip), {"clip": SMALL, "task_routing": True})
    return _folder_case(sound, folder / "changed", lambda home: load_trained(home))


def backbone_folder(folder: Path) -> Case:
    sound = folder / "backbone"
    sound.mkdir()
    save_backbone(sound, _small_clip(), SMALL)
    return _folder_case(sound, folder / "changed", lambda home: load_backbone(home))


def prompts_folder(folder: Path) -> Case:
    sound, tower = folder / "prompts", TextTower(_small_clip())
    sound.mkdir()
    options = Prompt(enabled=True, id_tokens=2, instance_tokens=3), Inversion(layers=1, heads=2)
    save_prompts(sound, LearnedPrompts(*options, tower, [1, 2, 3]))
    return _folder_case(sound, folder / "changed", lambda home: load_prompts(home, *options, tower))


def _folder_case(sound: Path, home: Path, read: Callable[[Path], object]) -> Case:
    def case(rng: random.Random) -> None:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(sound, home)
        file = rng.choice(sorted(home.iterdir()))
        data = file.read_bytes()
        if rng.random() < 0.05:
            file.unlink()
        elif file.suffix == ".json":
            file.write_bytes(mutate_json(json.loads(data), rng))
        else:
            file.write_bytes(mutate_safetensors(data, rng))
        read(home)

    return case


TARGETS: dict[str, tuple[int, Callable[[Path], Case]]] = {  # name -> how often, what prepares it
    "cuhk-pedes": (8, caption_set("cuhk-pedes", "reid_raw.json", "file_path", 1)),
    "icfg-pedes": (4, caption_set("icfg-pedes", "ICFG-PEDES.json", "file_path", 0)),
    "rstpreid": (4, caption_set("rstpreid", "data_captions.json", "img_path", 0)),
    "msmt17": (8, msmt17_lists),
    "market-1501": (3, market_names),
    "csv": (10, csv_table),
    "parquet": (8, parquet_table),
    "folders": (8, folders),
    "preprocess": (4, preprocess),
    "pictures": (16, pictures),
    "safetensors": (6, weights_safetensors),
    "torch": (8, weights_torch),
    "torchscript": (6, weights_torchscript),
    "given-weights": (6, given_weights),
    "params": (6, params),
    "resume-state": (6, resume_state),
    "resume-block": (6, resume_block),
    "store": (6, store),
    "manifests": (8, manifests),
    "feature-cache": (6, feature_cache),
    "packed": (3, packed_pictures),
    "model": (5, model_folder),
    "backbone": (4, backbone_folder),
    "prompts": (4, prompts_folder),
}
