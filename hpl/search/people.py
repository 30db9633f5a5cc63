"""The people whom clusters tell apart among a gallery's pictures, as CSV or as one self-contained page."""

import base64
import csv
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpl.files import HplError
from hpl.search.cluster import closeness, cluster_vectors
from hpl.search.gallery import Gallery
from hpl.search.output import safe_cell, thumbnail

_SHOWN_CLUSTERS, _SHOWN_PICTURES, _SHOWN_ALONE = 200, 24, 200  # on a page; the CSV has all
_HEIGHT = 96  # pixels of a thumbnail


@dataclass(frozen=True)
class People:
    """Who is who.

    Attributes:
        paths: of N pictures.
        labels: N numbers of clusters from 0, the largest first.
        closeness: N mean cosines with the others of the cluster; NaN for a picture that is alone.
        threshold: mean cosine from which clusters were joined.
    """

    paths: list[str]
    labels: np.ndarray
    closeness: np.ndarray
    threshold: float


def cluster_pictures(vectors_ND: np.ndarray, paths: Sequence[str], threshold: float) -> People:
    """Cluster pictures by their v_i2i, N x D of unit length (hpl.search.cluster)."""
    labels = cluster_vectors(vectors_ND, threshold)
    return People(list(paths), labels, closeness(vectors_ND, labels), threshold)


def cluster_gallery(gallery: Gallery, threshold: float | None = None) -> People:
    """Cluster the pictures of a gallery.

    Args:
        threshold: mean cosine from which clusters are joined; None: as the model's calibration has it.

    Raises:
        HplError: the gallery is empty, or no threshold is given and the model has none.
    """
    if threshold is None:
        calibration = gallery.model.calibration
        if calibration is None or calibration.cluster_threshold is None:
            why = "it has no calibration" if calibration is None else calibration.content["missing"]["clusters"]
            raise HplError(f"{gallery.model.folder}: no threshold for clusters ({why}); expected --threshold, such as 0.9")
        threshold = calibration.cluster_threshold
    paths, vectors = gallery.picture_vectors()
    return cluster_pictures(vectors, paths, threshold)


def write_people(people: People, form: str) -> str:
    """Write clusters as `form`: one of PEOPLE_FORMS."""
    if form not in PEOPLE_FORMS:
        raise HplError(f"format {form!r}; expected one of {', '.join(PEOPLE_FORMS)}")
    return PEOPLE_FORMS[form](people)


def _order(people: People) -> np.ndarray:
    """Sort pictures by cluster, and in it by closeness, the closest first."""
    return np.lexsort((np.arange(len(people.labels)), -np.nan_to_num(people.closeness), people.labels))


def _csv(people: People) -> str:
    out, sizes = io.StringIO(), np.bincount(people.labels)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "cluster", "size", "closeness"])
    for row in _order(people):
        near = "" if np.isnan(people.closeness[row]) else f"{people.closeness[row]:.4f}"
        writer.writerow([safe_cell(people.paths[row]), people.labels[row], sizes[people.labels[row]], near])
    return out.getvalue()


def _picture(path: str) -> str:
    name = html.escape(path)
    try:
        data = base64.b64encode(thumbnail(path, _HEIGHT)).decode()
    except HplError as error:
        return f"<p>{html.escape(str(error))}</p>"
    return f'<img alt="{name}" title="{name}" src="data:image/jpeg;base64,{data}">'


def _html(people: People) -> str:
    sizes, order = np.bincount(people.labels), _order(people)
    several = int((sizes > 1).sum())
    parts, ends = [], np.cumsum(sizes)
    for number in range(min(several, _SHOWN_CLUSTERS)):
        rows = order[ends[number] - sizes[number] : ends[number]]
        shown = "".join(_picture(people.paths[row]) for row in rows[:_SHOWN_PICTURES])
        more = f" <small>and {len(rows) - _SHOWN_PICTURES:,} more</small>" if len(rows) > _SHOWN_PICTURES else ""
        near = f"closeness {np.mean(people.closeness[rows]):.3f}"
        parts.append(f"<section><h2>Cluster {number}: {len(rows):,} pictures, {near}</h2>{shown}{more}</section>\n")
    alone = order[len(order) - int((sizes == 1).sum()) :]
    if len(alone):
        shown = "".join(_picture(people.paths[row]) for row in alone[:_SHOWN_ALONE])
        parts.append(f"<details><summary>{len(alone):,} pictures are alone</summary>{shown}</details>\n")
    left = f" The largest {_SHOWN_CLUSTERS} clusters are shown; the CSV has all." if several > _SHOWN_CLUSTERS else ""
    left += f" Of those alone, {_SHOWN_ALONE} are shown." if len(alone) > _SHOWN_ALONE else ""
    return _PAGE.format(
        summary=f"{len(people.paths):,} pictures: {several:,} clusters of several and {len(alone):,} alone, joined from a mean "
        f"cosine of {people.threshold:.4f}. A cluster is a guess at one person, by looks; closeness is the mean cosine of its "
        f"pictures.{left}",
        body="".join(parts),
    )


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Who is who</title>
<style>:root{{color-scheme:light dark;font:16px system-ui,sans-serif}}body{{margin:1rem}}
h2{{font-size:1rem;margin:1.2rem 0 .3rem}}
img,p{{margin:0 .25rem .25rem 0;vertical-align:top}}p{{max-width:60rem}}small{{color:GrayText}}
summary{{margin-top:1.2rem}}</style>
<h1>Who is who</h1>
<p>{summary}</p>
{body}</html>
"""
PEOPLE_FORMS: dict[str, Callable[[People], str]] = {"csv": _csv, "html": _html}
