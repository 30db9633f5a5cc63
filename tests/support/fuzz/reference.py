"""Second readers of the formats, naive and apart from hpl's: a list of records, or Refused. Only the rules are the same.

A record is (path, split, role, person, source_pid, camid, captions, anonymous).
"""

import difflib
import json
import os
import re
import unicodedata
from pathlib import Path

Record = tuple[str, str, str, str, int | None, int, tuple[str, ...], bool]
ROLES = {"train": ("train", "train"), "val": ("val", "val"), "test": ("test", ""), "query": ("test", "query")}
ROLES["gallery"] = ("test", "gallery")
NOBODY = ("", "nan", "NaN", "null", "NULL", "None", "N/A", "<NA>")
PICTURES = "jpg jpeg jpe jfif png bmp webp tif tiff gif ppm heic heif avif jxl jp2".split()


class Refused(Exception):
    """The input is not of the format."""


def need(condition: object) -> None:
    if not condition:
        raise Refused


def text_of(file: Path) -> str:
    need(file.is_file())
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise Refused from None
    return text[1:] if text[:1] == "\ufeff" else text


def inside(path: object) -> str:
    """A path without '.', '..' and doubled slashes, which never climbs above where it begins."""
    need(isinstance(path, str) and path.strip() and path[0] != "/")
    need(not any(letter in "\\\0" or 0xD800 <= ord(letter) <= 0xDFFF for letter in path))
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            need(kept)
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    need(kept)
    return "/".join(kept)


def sentence(text: object) -> str:
    need(isinstance(text, str))
    words, word = [], ""
    for letter in text + " ":
        if letter.isspace():
            words += [word] if word else []
            word = ""
        elif unicodedata.category(letter) not in ("Cc", "Cf"):
            word += letter
    need(words and not any(0xD800 <= ord(letter) <= 0xDFFF for letter in "".join(words)))
    return " ".join(words)


def digits(text: str) -> int:
    need(text and all(letter in "0123456789" for letter in text) and len(text) <= 18)
    need(int(text) < 2**31)
    return int(text)


def caption_set(root: Path, annotation: str, path_key: str, first_id: int) -> list[Record]:
    try:
        content = json.loads(text_of(root / annotation))
    except (ValueError, RecursionError):
        raise Refused from None
    need(type(content) is list and content)
    records = []
    for entry in content:
        need(type(entry) is dict)
        need({path_key, "id", "split", "captions"} <= entry.keys())
        split, pid, captions = entry["split"], entry["id"], entry["captions"]
        need(type(split) is str and split.lower() in ("train", "val", "test"))
        need(type(pid) is int and first_id <= pid <= 2**31 - 1)
        need(type(captions) is list and captions)
        split = split.lower()
        role = "gallery" if split == "test" else split
        path = "imgs/" + inside(entry[path_key])
        records.append((path, split, role, str(pid), pid, -1, tuple(sentence(text) for text in captions), False))
    return records


def lists(root: Path) -> list[Record]:
    records = []
    for part, split, role in (
        ("train", "train", "train"),
        ("val", "train", "train"),
        ("query", "test", "query"),
        ("gallery", "test", "gallery"),
    ):
        file = root / f"list_{part}.txt"
        if part == "val" and not file.is_file():
            continue
        found = 0
        for line in text_of(file).replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            if not line.strip():
                continue
            fields = line.split()
            need(len(fields) == 2)
            pid, path = digits(fields[1]), inside(fields[0])
            parts = path.split("/")
            camera = parts[-1].split("_")
            need(len(camera) > 2)
            if len(parts) > 1 and parts[-2].isascii() and parts[-2].isdigit() and len(parts[-2]) < 19 and int(parts[-2]) < 2**31:
                need(int(parts[-2]) == pid)
            records.append((f"{split}/{path}", split, role, f"{split}/{pid:04d}", pid, digits(camera[2]), (), False))
            found += 1
        need(found)
    return records


def csv_rows(text: str) -> list[list[str]]:
    """Cells of a CSV file, by a machine of five states."""
    need("\0" not in text)
    rows, cells, cell, state = [], [], "", "begin"
    for letter in [*text, ""]:  # "" is the end
        if state == "return":
            need(letter in ("\r", "\n", ""))
            if letter == "\r":
                continue
            rows.append(cells)
            cells, cell, state = [], "", "begin"
            if letter == "\n" or not letter:
                continue
        if state == "quoted" and letter != '"':
            need(letter)
            cell += letter
        elif state == "quoted":
            state = "closed"
        elif letter == '"' and state == "closed":
            cell, state = cell + '"', "quoted"
        elif letter == '"' and state == "begin":
            state = "quoted"
        elif letter == ",":
            cells.append(cell)
            cell, state = "", "begin"
        elif letter in ("\n", "\r", ""):
            if cells or cell or state != "begin":
                cells.append(cell)
            if letter == "\r":
                state = "return"
                continue
            rows.append(cells)
            cells, cell, state = [], "", "begin"
        else:
            need(state != "closed")
            cell, state = cell + letter, "plain"
        need(len(cell) <= 131072)
    return [row for row in rows if row]


def csv_table(file: Path) -> list[Record]:
    rows = csv_rows(text_of(file))
    need(rows)
    need(all(len(row) == len(rows[0]) for row in rows))
    return table(rows[0], rows[1:])


def parquet_table(file: Path) -> list[Record]:
    import pyarrow.parquet as pq

    try:
        content = pq.read_table(file, memory_map=False)
        names = content.column_names
        known = [name.strip().lower() in ("path", "pid", "camid", "caption", "split") for name in names]
        columns = [column.to_pylist() if wanted else [None] * len(column) for column, wanted in zip(content.columns, known)]
    except Exception:
        raise Refused from None
    return table(names, list(zip(*columns)))


def table(header: list[str], rows: list) -> list[Record]:
    names, known = [name.strip().lower() for name in header], ("path", "pid", "camid", "caption", "split")
    need("path" in names and "pid" in names and len(set(names)) == len(names))
    for name in names:
        need(name in known or not difflib.get_close_matches(name, known, cutoff=0.8))
    need(rows)
    return [_row(dict(zip(names, cells)), "split" in names) for cells in rows]


def _row(row: dict, has_split: bool) -> Record:
    split = role = ""
    if has_split:
        need(isinstance(row["split"], str) and row["split"].strip().lower() in ROLES)
        split, role = ROLES[row["split"].strip().lower()]
    person, source_pid = who(_unpointed(_cell(row["pid"])), role)
    camera = _cell(row.get("camid"))
    caption = row.get("caption")
    missing = caption is None or caption != caption or (isinstance(caption, str) and not caption.strip())
    return (
        inside(row["path"].strip() if isinstance(row["path"], str) else row["path"]),
        split,
        "gallery" if source_pid is not None and split else role,
        person,
        source_pid,
        -1 if camera in NOBODY else digits(_unpointed(camera)),
        () if missing else (sentence(caption),),
        source_pid is not None,
    )


def _cell(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value.strip()
    need(type(value) in (int, float) and value == value // 1)
    return str(int(value))


def _unpointed(text: str) -> str:
    whole, point, rest = text.partition(".")
    number = whole[1:] if whole[:1] == "-" else whole
    is_number = number.isascii() and number.isdigit()
    return whole if point and rest and set(rest) == {"0"} and is_number else text


def who(name: str, role: str) -> tuple[str, int | None]:
    """The person's key, and the pid of an anonymous picture."""
    name = unicodedata.normalize("NFC", name)
    need(name not in NOBODY)
    if name == "-1" or name.lower() in ("distractor", "distractors"):
        need(role in ("", "gallery"))
        return "", -1 if name == "-1" else 0
    need(not re.match(r"-[0-9]+(\.[0-9]*)?\Z", name))
    return name, None


def _shown(folder: Path) -> list[str]:
    litter = ("thumbs.db", ".ds_store", "desktop.ini")
    names = os.listdir(folder)
    return sorted(name for name in names if name[0] != "." and name != "__MACOSX" and name.lower() not in litter)


def _ending(name: str) -> str:
    stem, point, ending = name.rpartition(".")
    return ending.lower() if point and stem.strip(".") else ""


def _inner(folder: Path) -> list[Path]:
    names = _shown(folder)
    found = [folder / name for name in names if (folder / name).is_dir()]
    need(not any(_ending(name) in PICTURES for name in names if not (folder / name).is_dir()))
    return found


def folders(root: Path) -> list[Record]:
    tops = _inner(root)
    need(tops)
    if len(tops) == 1 and tops[0].name.lower() not in ROLES:
        names = _shown(tops[0])
        if any((tops[0] / name).is_dir() for name in names) and not any(_ending(name) in PICTURES for name in names):
            tops = _inner(tops[0])
    are_splits = [top.name.lower() in ROLES for top in tops]
    need(all(are_splits) or not any(are_splits))
    records: list[Record] = []
    for top in tops:
        split, role = ROLES[top.name.lower()] if any(are_splits) else ("", "")
        people = _inner(top) if any(are_splits) else [top]
        need(people)
        for person in people:
            name, source_pid = who(person.name, role)
            found = _below(person)
            records += [
                (inside(path.relative_to(root).as_posix()), split, "gallery" if source_pid is not None and split else role,
                 name, source_pid, -1, captions, source_pid is not None) for path, captions in found
            ]  # fmt: skip
    need(records)
    return records


def _below(folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    found, texts, inner = [], {}, []
    for name in _shown(folder):
        if (folder / name).is_dir():
            inner.append(folder / name)
        elif _ending(name) == "txt":
            lines = text_of(folder / name).replace("\r\n", "\n").replace("\r", "\n").split("\n")
            said = tuple(sentence(line) for line in lines if line.strip())
            texts[name[:-4]] = texts.get(name[:-4], ()) + said
        elif _ending(name) in PICTURES or (_ending(name) != "txt" and _begins_as_a_picture(folder / name)):
            found.append(folder / name)
    stems = [path.name[: -len(_ending(path.name)) - 1] if _ending(path.name) else path.name for path in found]
    need(set(texts) <= set(stems))
    records = [(path, texts.get(stem, ())) for path, stem in zip(found, stems)]
    for each in inner:
        records += _below(each)
    return records


def _begins_as_a_picture(file: Path) -> bool:
    head = file.read_bytes()[:12]
    marks = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
    return head.startswith(marks) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def market(root: Path) -> list[Record]:
    records: list[Record] = []
    for folder, split, role in (
        ("bounding_box_train", "train", "train"),
        ("query", "test", "query"),
        ("bounding_box_test", "test", "gallery"),
    ):
        names = _shown(root / folder)
        need(names)
        for name in names:
            need(not (root / folder / name).is_dir())
            lower, stem = name.lower(), ""
            for suffix in (".jpg.jpg", ".jpg", ".jpeg", ".png"):
                if lower.endswith(suffix):
                    stem = name[: -len(suffix)]
                    break
            parts = stem.split("_")
            need(len(parts) == 4 and all(part.isascii() for part in parts))
            camera, mark, sequence = parts[1][1:].partition("s")
            need(parts[1][:1] == "c" and mark and all(part.isdigit() for part in (camera, sequence, parts[2], parts[3])))
            need(len(camera) <= 9 and (parts[0] == "-1" or (parts[0].isdigit() and len(parts[0]) <= 9)))
            pid = int(parts[0])
            need(pid > 0 or role == "gallery")
            person = f"{pid:04d}" if pid > 0 else ""
            records.append((f"{folder}/{name}", split, role, person, pid, int(camera), (), pid <= 0))
    return records
