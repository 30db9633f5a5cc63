"""Results as a table, JSON, CSV or one self-contained page."""

import base64
import csv
import html
import io
import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from PIL import Image

from hpl.files import HplError
from hpl.pictures import decode_picture
from hpl.search.gallery import Found, Hit

_THUMBNAIL = 192  # pixels high at most
_FIELDS = ["rank", "score", "probability", "band", "id", "path", "camera", "time", "track"]


def write_results(results: Found, form: str, title: str) -> str:
    """Write results as `form`: one of FORMS."""
    if form not in FORMS:
        raise HplError(f"format {form!r}; expected one of {', '.join(FORMS)}")
    return FORMS[form](results, title)


def _table(results: Found, title: str) -> str:
    lines = []
    for rank, each in enumerate(results, 1):
        chance = "" if each.probability is None else f"{each.probability:7.1%} {each.band:<8}"
        about = " ".join(f"{name} {value}" for name in ("camera", "time", "track") if (value := getattr(each, name)) is not None)
        lines.append(f"{rank:3d} {each.score:8.4f} {chance} {each.path}{f'  ({about})' if about else ''}\n")
    return "".join(lines)


def _json(results: Found, title: str) -> str:
    rows = [{"rank": rank, **asdict(each)} for rank, each in enumerate(results, 1)]
    told = {"query": title, "searched": results.searched, "gallery_size": results.size, "note": results.note, "results": rows}
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def safe_cell(value: object) -> object:
    """Put a quote before text that a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _csv(results: Found, title: str) -> str:
    further = sorted({name for each in results for name in each.columns} - set(_FIELDS))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(safe_cell(name) for name in (*_FIELDS, *further))
    for rank, each in enumerate(results, 1):
        told = {"rank": rank, **asdict(each), **{name: each.columns.get(name) for name in further}}
        writer.writerow(safe_cell(told[name]) for name in (*_FIELDS, *further))
    return out.getvalue()


def thumbnail(path: str, height: int = _THUMBNAIL) -> bytes:
    """Decode a picture and make a JPEG at most `height` high of it. HplError if it is gone or damaged."""
    return shrunk(decode_picture(path), height)


def shrunk(pixels_HW3: np.ndarray, height: int) -> bytes:
    """Make a JPEG at most `height` high and wide of uint8 RGB pixels."""
    picture, out = Image.fromarray(pixels_HW3), io.BytesIO()
    picture.thumbnail((height, height))
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


def _figure(rank: int, each: Hit) -> str:
    try:
        data = base64.b64encode(thumbnail(each.path)).decode()
        shown = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    except HplError as error:
        shown = f"<p>{html.escape(str(error))}</p>"
    chance = "" if each.probability is None else f"<br>{each.probability:.1%}, {each.band}"
    camera = "" if each.camera is None else f"<br>camera {html.escape(each.camera)}"
    time = "" if each.time is None else f"<br>{each.time}"
    name = html.escape(each.path)
    return (
        f"<figure>{shown}<figcaption>{rank}. {each.score:.4f}{chance}{camera}{time}<br><small>{name}"
        "</small></figcaption></figure>\n"
    )


def _html(results: Found, title: str) -> str:
    figures = "".join(_figure(rank, each) for rank, each in enumerate(results, 1))
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>:root{{color-scheme:light dark;font:16px system-ui,sans-serif}}"
        "main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr))}figure{margin:0}"
        "img{max-width:100%}small{overflow-wrap:anywhere}</style>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{len(results)} of {results.searched} pictures searched; {results.size} in the "
        f"gallery. {html.escape(results.note)}</p>\n<main>\n{figures}</main></html>\n"
    )


FORMS: dict[str, Callable[[Found, str], str]] = {"table": _table, "json": _json, "csv": _csv, "html": _html}
