"""The command `hpl`: reads arguments, calls hpl.search, prints. Data goes to stdout, everything else to stderr.

Exit status: 0 found or done, 1 nothing found or a fault that `verify` shows, 2 error.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from hpl.files import HplError, readable

app = typer.Typer(
    help="Find a person among your own pictures, by picture or by description.\n\n"
    "Examples:\n\n"
    "  hpl index add shop.gallery crops/ --model data/model\n\n"
    '  hpl search shop.gallery -t "A woman in a red coat."\n\n'
    "  hpl search shop.gallery -i anna.jpg --format html > anna.html",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
index = typer.Typer(help="Make a gallery of pictures and keep it up to date.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(index, name="index")

_Folder = Annotated[Path, typer.Argument(metavar="GALLERY", help="folder of the gallery", show_default=False)]
_Model = Annotated[Path | None, typer.Option("--model", envvar="HPL_MODEL", help="model folder, such as data/model")]
_Engine = Annotated[str, typer.Option("--engine", help="faiss, numpy or ivf")]


def _told(function: Callable) -> Callable:
    """Turn a user's mistake into one line on stderr and exit status 2."""

    @wraps(function)
    def run(*args, **kwargs):  # noqa: ANN202
        try:
            return function(*args, **kwargs)
        except HplError as error:
            print(f"error: {readable(error)}", file=sys.stderr)
        except BrokenPipeError:  # as `| head` closes it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            print(f"error: {readable(error)}", file=sys.stderr)
        raise typer.Exit(2)

    return run


def _model_of(model: Path | None) -> Path:
    if model is None:
        raise HplError("no model is named; expected --model FOLDER or HPL_MODEL, such as data/model")
    return model


def _listed(names: list[str]) -> list[str]:
    """Put the lines of stdin where a name is `-`."""
    return [line for name in names for line in (sys.stdin.read().splitlines() if name == "-" else [name]) if line]


@index.command()
@_told
def add(
    gallery: _Folder,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="folder, .csv, .parquet, pictures, or - for a list")],
    model: _Model = None,
    camera_pattern: Annotated[
        str | None, typer.Option(help="regular expression; its first group is the camera: 'c(\\d)s'")
    ] = None,
) -> None:
    """Bring a gallery up to date with its sources: encode what is new or changed, drop what is gone.

    Example: hpl index add shop.gallery crops/ --model data/model
    """
    from hpl.search.gallery import Gallery

    if (gallery / "gallery.json").is_file():
        opened = Gallery.open(gallery, model)
    else:
        opened = Gallery.create(gallery, _model_of(model))
    for source in sources:
        listed = _listed(["-"]) if source == "-" else source
        changes = opened.add(listed, camera_pattern=camera_pattern, progress=True)
        print(
            f"{source}: {changes.added} added, {changes.changed} changed, {changes.unchanged} unchanged, {changes.removed} "
            f"removed, {len(changes.bad)} bad and left out; {len(opened)} pictures in the gallery",
            file=sys.stderr,
        )


@index.command()
@_told
def rm(
    gallery: _Folder,
    pictures: Annotated[list[str] | None, typer.Argument(metavar="[PICTURE...]", help="paths, folders, id:NUMBER, or -")] = None,
    expire: Annotated[str | None, typer.Option(help="also what is older: 90d, 12h")] = None,
) -> None:
    """Delete pictures from all results at once; `compact` then takes them out of the files.

    Example: hpl index rm shop.gallery --expire 90d && hpl index compact shop.gallery
    """
    from hpl.search.gallery import Gallery

    if not pictures and expire is None:
        raise HplError("nothing is named; expected pictures or --expire")
    named = [int(each[3:]) if re.fullmatch(r"id:\d+", each) else each for each in _listed(pictures or [])]
    print(f"{Gallery.open(gallery).remove(named, older_than=_seconds(expire))} removed", file=sys.stderr)


def _seconds(age: str | None) -> float | None:
    if age is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([dhm])", age)
    if not found:
        raise HplError(f"--expire {age}: expected an age such as 90d, 12h or 30m")
    return float(found[1]) * {"d": 86400, "h": 3600, "m": 60}[found[2]]


@index.command()
@_told
def status(gallery: _Folder) -> None:
    """Show what a gallery holds, as JSON."""
    from hpl.search.gallery import Gallery

    print(json.dumps(Gallery.open(gallery).status(), indent=2))


@index.command()
@_told
def verify(gallery: _Folder) -> None:
    """Compare all files with the catalogue, and say whether deleted vectors are still in their bytes; exit 1 at a fault."""
    from hpl.search.gallery import Gallery

    opened = Gallery.open(gallery)
    faults, dead = opened.verify(), opened.status()["deleted_in_bytes"]
    for line in faults:
        print(readable(line))
    print(f"{len(opened)} pictures, {len(faults)} faults, {dead} deleted pictures in the bytes of segments until compact runs")
    raise typer.Exit(1 if faults else 0)


@index.command()
@_told
def compact(gallery: _Folder) -> None:
    """Rewrite the files without what was deleted."""
    from hpl.search.gallery import Gallery

    print(f"the vectors of {Gallery.open(gallery).compact()} deleted pictures are gone", file=sys.stderr)


@index.command()
@_told
def upgrade(
    gallery: _Folder, new: Annotated[Path, typer.Argument(metavar="NEW", help="folder of the new gallery")], model: _Model = None
) -> None:
    """Encode the same pictures with another model into a new gallery; the old one stays until you delete it.

    Example: hpl index upgrade shop.gallery shop2.gallery --model other/model
    """
    from hpl.search.gallery import Gallery

    print(f"{len(Gallery.open(gallery).upgrade(new, _model_of(model), progress=True))} pictures in {new}", file=sys.stderr)


@index.command()
@_told
def export(gallery: _Folder, out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="file to write")]) -> None:
    """Write pictures and their vectors of both tokens as Parquet, for other engines."""
    from hpl.search.gallery import Gallery
    from hpl.search.parquet import export_vectors

    print(f"{export_vectors(Gallery.open(gallery), out)} pictures written to {out}", file=sys.stderr)


@app.command()
@_told
def search(  # noqa: PLR0913  (each is an option)
    gallery: _Folder,
    text: Annotated[str | None, typer.Option("-t", "--text", help="a sentence that describes the person")] = None,
    picture: Annotated[
        list[str] | None, typer.Option("-i", "--picture", help="picture of the person; id:NUMBER; - a list")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option("--not", help="a sentence, or a picture file, that it should not be")
    ] = None,
    count: Annotated[int, typer.Option("-k", help="results at most")] = 20,
    threshold: Annotated[float | None, typer.Option(help="least score")] = None,
    false_alarms: Annotated[float | None, typer.Option(help="threshold at this rate of false alarms, by the calibration")] = None,
    prior: Annotated[float | None, typer.Option(help="share of the pictures searched that show the person")] = None,
    weight: Annotated[float, typer.Option(help="of the sentence beside pictures, 0..1")] = 0.5,
    camera: Annotated[list[str] | None, typer.Option(help="only this camera; may be given again")] = None,
    other_cameras: Annotated[bool, typer.Option("--other-cameras", help="no camera of the query pictures")] = False,
    after: Annotated[str | None, typer.Option(help="ISO 8601, UTC")] = None,
    before: Annotated[str | None, typer.Option(help="ISO 8601, UTC")] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="may be given again")] = None,
    form: Annotated[str, typer.Option("--format", help="table, json, csv or html")] = "table",
    model: _Model = None,
    engine: _Engine = "faiss",
) -> None:
    """Find a person; exit 0 if something was found, 1 if nothing reached the threshold.

    Examples:

      hpl search shop.gallery -t "A man with a blue backpack." --camera 3 --after 2026-11-25T08:00

      hpl search shop.gallery -i anna1.jpg -i anna2.jpg --not "a red coat" --other-cameras
    """
    from hpl.search.gallery import Gallery
    from hpl.search.output import FORMS, write_results
    from hpl.search.query import Query

    if form not in FORMS:
        raise HplError(f"--format {form}: expected one of {', '.join(FORMS)}")
    query = Query(
        text=text,
        pictures=[_picture(each) for each in _listed(picture or [])],
        against=[each for each in unlike or [] if not _is_picture(each)],
        against_pictures=[_picture(each) for each in unlike or [] if _is_picture(each)],
        k=count,
        threshold=threshold,
        false_alarms=false_alarms,
        prior=prior,
        weight=weight,
        cameras=camera or [],
        other_cameras=other_cameras,
        after=after,
        before=before,
        where=dict(_pair(each) for each in where or []),
    )
    results = Gallery.open(gallery, model, engine=engine).search(query)
    if results.note:
        print(f"note: {results.note}", file=sys.stderr)
    sys.stdout.write(write_results(results, form, " + ".join(filter(None, [text, *(picture or [])]))))
    sys.stdout.flush()
    raise typer.Exit(0 if results else 1)


def _picture(name: str) -> int | str:
    return int(name[3:]) if re.fullmatch(r"id:\d+", name) else name


def _is_picture(name: str) -> bool:
    return os.path.isfile(name) or bool(re.fullmatch(r"id:\d+", name))


def _pair(condition: str) -> tuple[str, str]:
    name, equals, value = condition.partition("=")
    if not equals or not name:
        raise HplError(f"--where {condition}: expected COLUMN=VALUE")
    return name, value


@app.command()
@_told
def compare(
    one: Annotated[str, typer.Argument(metavar="PICTURE")],
    other: Annotated[str | None, typer.Argument(metavar="[PICTURE]")] = None,
    text: Annotated[str | None, typer.Option("-t", "--text", help="a sentence instead of the second picture")] = None,
    model: _Model = None,
) -> None:
    """Compare two pictures, or a picture and a sentence: the score and, with a calibration, the probability."""
    from hpl.search.gallery import compare_pictures
    from hpl.search.model import SearchModel

    result, note = compare_pictures(SearchModel(_model_of(model)), one, other, text)
    chance = "" if result.probability is None else f"  {result.probability:.1%} {result.band}"
    print(f"{result.score:.4f}{chance}")
    if note:
        print(f"note: {note}", file=sys.stderr)


@app.command()
@_told
def cluster(
    gallery: _Folder,
    form: Annotated[str, typer.Option("--format", help="csv or html")] = "csv",
    threshold: Annotated[float | None, typer.Option(help="mean cosine from which clusters are joined")] = None,
    model: _Model = None,
) -> None:
    """Tell who is who among unlabelled pictures, by looks: a line a picture with the number of its cluster, or a page.

    Example: hpl cluster shop.gallery --format html > people.html
    """
    from hpl.search.gallery import Gallery
    from hpl.search.people import PEOPLE_FORMS, cluster_gallery, write_people

    if form not in PEOPLE_FORMS:
        raise HplError(f"--format {form}: expected {' or '.join(PEOPLE_FORMS)}")
    people = cluster_gallery(Gallery.open(gallery, model), threshold)
    sys.stdout.write(write_people(people, form))
    sys.stdout.flush()
    print(f"{len(people.paths)} pictures in {people.labels.max() + 1} clusters", file=sys.stderr)


@app.command()
@_told
def serve(  # noqa: PLR0913  (each is an option)
    gallery: _Folder,
    host: Annotated[str, typer.Option(help="address to listen on; any but this machine's own asks for a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one")] = 8000,
    token: Annotated[str | None, typer.Option(envvar="HPL_TOKEN", help="what every request must bear")] = None,
    show: Annotated[bool, typer.Option("--open", help="open the page in this machine's browser")] = False,
    model: _Model = None,
    engine: _Engine = "faiss",
) -> None:
    """Search a gallery in a browser.

    Example: hpl serve shop.gallery
    """
    from hpl.search.gallery import Gallery

    try:
        from hpl.web.server import run_server
    except ImportError as error:
        raise HplError(f"the page needs {error.name}; to install it: pip install 'hpl-reid[web]'") from None
    run_server(Gallery.open(gallery, model, engine=engine), host, port, token, show)


@app.command()
@_told
def crop(
    frames: Annotated[Path, typer.Argument(metavar="FRAMES", help="folder of full frames")],
    boxes: Annotated[Path, typer.Option("--boxes", help="MOT .txt, COCO .json, folder of YOLO .txt, or .csv")],
    out: Annotated[Path, typer.Option("--out", help="new folder for crops and crops.csv")],
    camera: Annotated[str | None, typer.Option(help="camera of all frames")] = None,
) -> None:
    """Cut people out of full frames by boxes from a file; crops.csv can then be added to a gallery.

    Example: hpl crop frames/ --boxes gt.txt --out crops && hpl index add shop.gallery crops/crops.csv
    """
    from hpl.search.crop import crop_frames

    written, faults = crop_frames(frames, boxes, out, camera)
    for line in faults:
        print(f"left out: {readable(line)}", file=sys.stderr)
    print(f"{written} crops in {out}, told in {out / 'crops.csv'}", file=sys.stderr)


@app.command()
@_told
def info(model: _Model = None) -> None:
    """Show a model, as JSON: hash, input, features a vector, calibrated tasks."""
    from hpl.search.model import SearchModel
    from hpl.tasks import TASKS

    found = SearchModel(_model_of(model))
    calibration = found.calibration
    missing = {name: "no calibration" if calibration is None else calibration.missing(task) for name, task in TASKS.items()}
    told = {"folder": str(found.folder), "sha256": found.sha256, "features": found.features, "input": found.input.model_dump()}
    calibrated = {name: reason or "calibrated" for name, reason in missing.items()}
    print(json.dumps({**told, "calibration": calibrated}, indent=2))


if __name__ == "__main__":
    app(prog_name="hpl")
