"""Mutators: bytes as a disk or a careless program damages them, and structure as people and other programs write it."""

import copy
import io
import json
import random
import struct
import zipfile

ODD_TEXTS = [
    "", " ", "\t\n", "\0", "a\0b", "\ud800", "\ufeff", "\u200b", "e\u0301", "\u00e9", "nan", "None", "null", "-1", "0", "1.0",
    "-0", "1e3", "007", "\u0667", "distractor", "Distractors", "train", "TEST", "query",
    "../x", "a/../../b", "/etc/passwd", "..", ".",
    "./a", "a//b", "a\\b", "~", "C:/x", "x" * 300, "\U0001f600", "<end_of_text>", "'; DROP", "a,b", 'a"b', "a\nb", "\r",
    "%s", "{0}", "${x}",
]  # fmt: skip
ODD_VALUES = [
    None, True, False, -1, 0, 1, 2**31 - 1, 2**31, 2**63, 10**40, -0.0, 0.5, 1e308, float("nan"), float("inf"), [], {}, [[]],
    [None], {"a": 1}, [1, "a"],
]  # fmt: skip
_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]


def odd_value(rng: random.Random) -> object:
    return rng.choice(ODD_TEXTS) if rng.random() < 0.5 else copy.deepcopy(rng.choice(ODD_VALUES))


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, overwrite or insert, once to four times."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        length = min(rng.choice((1, 2, 4, 16, 100, 1000)), len(out) - at)
        kind = rng.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            out[at : at + length] = bytes(length)
        elif kind == 5:
            out[at : at + length] = rng.randbytes(length)
        elif kind == 6:
            number = struct.pack(rng.choice(("<I", ">I", "<Q", ">H")), rng.choice(_NUMBERS[:7]))
            out[at : at + len(number)] = number
        else:
            out[at:at] = rng.choice(ODD_TEXTS).encode(errors="surrogatepass")
    return bytes(out)


def _places(value: object) -> list[tuple]:
    """Every (container, key) below a value of dicts and lists."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(value, key), *_places(inner)]
    return found


def mutate_structure(value: object, rng: random.Random) -> object:
    """Replace, drop, repeat, rename or swap parts of JSON-like content, once to three times."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        if not places or rng.random() < 0.02:
            return odd_value(rng)
        container, key = rng.choice(places)
        kind = rng.choice((0, 2, 3, 4, 5, 5, 5, 6))
        if kind == 0:
            container[key] = odd_value(rng)
        elif kind == 2:
            del container[key]
        elif kind == 3:
            container[key] = copy.deepcopy(rng.choice(places)[0])
        elif kind == 4 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == 4:
            container[rng.choice([f"{key}s", str(key).upper(), "x"])] = container.pop(key)
        elif kind == 5 and isinstance(container[key], str):
            text = container[key]
            at = rng.randrange(len(text) + 1)
            container[key] = text[:at] + rng.choice(ODD_TEXTS) + text[at:]
        elif kind == 5 and type(container[key]) is int:
            container[key] = rng.choice([str(container[key]), float(container[key]), -container[key], [container[key]]])
        else:
            other, place = rng.choice(places)
            try:
                container[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(container[key])
            except (KeyError, IndexError):
                pass
    return value


def mutate_json(content: object, rng: random.Random) -> bytes:
    """JSON of changed structure, or changed bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(json.dumps(content).encode(), rng)
    if rng.random() < 0.02:
        return b"[" * 100_000
    text = json.dumps(mutate_structure(content, rng), ensure_ascii=rng.random() < 0.7)
    return text.encode(rng.choice(["utf-8"] * 20 + ["utf-8-sig", "utf-16"]), errors="surrogatepass")


def mutate_lines(text: str, rng: random.Random, separator: str) -> bytes:
    """Lines and cells of a list or table dropped, repeated, swapped or replaced; or changed bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(text.encode(), rng)
    rows = [line.split(separator) for line in text.split("\n")]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(rows))
        kind, cell = rng.randrange(6), rng.randrange(len(rows[at]))
        if kind == 0:
            rows.insert(at, list(rows[rng.randrange(len(rows))]))
        elif kind == 1 and len(rows) > 1:
            del rows[at]
        elif kind == 2:
            rows[at].insert(cell, rng.choice(ODD_TEXTS))
        elif kind == 3:
            other = rng.choice(rows)
            rows[at][cell] = rng.choice(other)
        else:
            rows[at][cell] = rng.choice(ODD_TEXTS)
    text = rng.choice(["\n"] * 4 + ["\r\n", "\r"]).join(separator.join(row) for row in rows)
    return text.encode(rng.choice(["utf-8"] * 10 + ["utf-8-sig", "latin-1"]), errors="replace")


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """A zip archive with one member changed, dropped, renamed or repeated, its checksums right again; or changed bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at, kind = rng.randrange(len(members)), rng.randrange(6)
    if rng.random() < 0.5:
        at = next((number for number, (name, _) in enumerate(members) if name.endswith("data.pkl")), at)
        kind = rng.randrange(2)
    name, content = members[at]
    if kind <= 2:
        members[at] = name, mutate_bytes(content, rng)
    elif kind == 3:
        del members[at]
    elif kind == 4:
        members[at] = name + rng.choice(["x", "/x", "\u00e9"]), content
    else:
        members.insert(at, (f"../{name}", content))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header's JSON changed and its length right again; or changed bytes."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.5:
        return mutate_bytes(data, rng)
    header = json.dumps(mutate_structure(json.loads(data[8 : 8 + length]), rng)).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
