"""The application: routes, and what each shows. Pictures are named by their id in the gallery, never by a path."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from hpl.files import HplError, readable
from hpl.pictures import decode_bytes
from hpl.search.gallery import Found, Gallery
from hpl.search.output import shrunk, thumbnail, write_results
from hpl.search.query import Query
from hpl.web.address import Asked, Uploads, read_asked
from hpl.web.guard import Guard

MOST_BYTES, _MOST_FILES = 32 * 2**20, 8  # of one upload, all its pictures together
_THUMBNAIL, _LARGE, _BROWSED, _MOST_CHOICES = 256, 512, 40, 60


class _InMemory(MultiPartParser):
    spool_max_size = MOST_BYTES  # above it Starlette would write a picture to the disk


@dataclass
class Pages:
    """What answers the routes."""

    gallery: Gallery
    uploads: Uploads = field(default_factory=Uploads)
    templates: Environment = field(
        default_factory=lambda: Environment(loader=PackageLoader("hpl.web", ""), autoescape=True, trim_blocks=True)
    )

    _known: tuple[int, dict] | None = None

    def results(self, request: Request) -> Response:
        """Show the form, and what the address asks."""
        try:
            asked = read_asked(request.query_params.multi_items())
        except HplError as error:
            return self._refused(error)
        try:
            found, told, status = self._found(asked), "", 200
        except HplError as error:
            found, told, status = None, readable(error), 400
        browsed = self.gallery.pictures(_BROWSED) if asked.is_empty else []
        shown = {"asked": asked, "found": found, "browsed": browsed, "error": told}
        return self._page("page.html.jinja", status, **shown, **self._choices())

    def _refused(self, error: HplError) -> Response:
        """Show an empty form, and why the question could not be read."""
        return self._page("page.html.jinja", 400, asked=Asked(), error=readable(error), **self._choices())

    def _found(self, asked: Asked) -> Found | None:
        return None if asked.is_empty else self.gallery.search(asked.query(self.uploads.find))

    async def ask(self, request: Request) -> Response:
        """Take the form, and lead to the address that holds the question. Pictures are decoded in memory before they are kept."""
        try:
            form = await _InMemory(request.headers, _limited(request), max_files=_MOST_FILES, max_fields=200).parse()
            given = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
            for _, file in form.multi_items():
                if isinstance(file, UploadFile) and file.filename:
                    given.append(("upload", await run_in_threadpool(self._keep, await file.read(), file.filename)))
            return RedirectResponse(read_asked(given).address(), 303)
        except (MultiPartException, KeyError) as error:
            raise HTTPException(400, f"not a form: {error}") from None
        except HplError as error:
            return await run_in_threadpool(self._refused, error)

    def _keep(self, data: bytes, name: str) -> str:
        decode_bytes(data, readable(name)[:100])
        key = sha256(data).hexdigest()[:32]
        self.uploads.keep(key, data)
        return key

    def as_csv(self, request: Request) -> Response:
        """Hand out the results as CSV, without what a spreadsheet would run."""
        try:
            asked = read_asked(request.query_params.multi_items())
            found = self._found(asked)
        except HplError as error:
            raise HTTPException(400, readable(error)) from None
        if found is None:
            raise HTTPException(400, "nothing is asked")
        told = {"Content-Disposition": 'attachment; filename="results.csv"'}
        return Response(write_results(found, "csv", asked.q), media_type="text/csv", headers=told)

    def compare(self, request: Request) -> Response:
        """Show two pictures of the gallery beside each other, and what their score says."""
        try:
            ids = [int(each) for each in request.query_params.getlist("picture") if each.isascii() and each.isdigit()]
            if len(ids) != 2:
                raise HplError(f"{len(ids)} pictures are marked; expected two to compare")
            pair = [self.gallery.picture(number) for number in ids]
            told = {"pair": pair, "hit": self.gallery.compare(*ids), "error": ""}
        except HplError as error:
            told = {"pair": [], "hit": None, "error": readable(error)}
        return self._page("compare.html.jinja", 400 if told["error"] else 200, **told)

    def picture(self, request: Request) -> Response:
        """Hand out a picture of the gallery, by its id, made small."""
        try:
            hit = self.gallery.picture(request.path_params["number"])
            height = _LARGE if "large" in request.query_params else _THUMBNAIL
            return _jpeg(thumbnail(hit.path, height))
        except HplError as error:
            raise HTTPException(404, readable(error)) from None

    def uploaded(self, request: Request) -> Response:
        """Hand out an uploaded picture, made small."""
        try:
            return _jpeg(shrunk(decode_bytes(self.uploads.find(request.path_params["name"]), "upload"), _THUMBNAIL))
        except HplError as error:
            raise HTTPException(404, readable(error)) from None

    def style(self, request: Request) -> Response:
        """Hand out the style sheet."""
        return Response(Path(__file__).with_name("page.css").read_text(), media_type="text/css")

    def warm_up(self) -> None:
        """Load the model, the index and the filters before the first question. HplError if the gallery's model is not there."""
        if self._choices()["size"]:
            self.gallery.search(Query(text="A person.", k=1))

    def _choices(self) -> dict:
        """List the filters that have few enough values to choose from; anew when the gallery has changed."""
        version = self.gallery.version
        if self._known is None or self._known[0] != version:
            self._known = version, self._read_choices()
        return self._known[1]

    def _read_choices(self) -> dict:
        columns = {name: self.gallery.values(name) for name in self.gallery.columns()}
        few = {name: values for name, values in columns.items() if 1 < len(values) <= _MOST_CHOICES}
        cameras = self.gallery.values("camera")
        return {"cameras": cameras if len(cameras) <= _MOST_CHOICES else [], "columns": few, "size": len(self.gallery)}

    def _page(self, template: str, status: int, **told: object) -> HTMLResponse:
        return HTMLResponse(self.templates.get_template(template).render(**told), status)


def make_app(gallery: Gallery, token: str | None = None) -> Starlette:
    """Make the application for a gallery. `token`: what every request must bear; None: only this machine can reach it."""
    pages = Pages(gallery)
    pages.warm_up()
    routes = [
        Route("/", pages.results),
        Route("/", pages.ask, methods=["POST"]),
        Route("/results.csv", pages.as_csv),
        Route("/compare", pages.compare),
        Route("/picture/{number:int}", pages.picture),
        Route("/upload/{name}", pages.uploaded),
        Route("/page.css", pages.style),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)])


async def _limited(request: Request) -> AsyncGenerator[bytes, None]:
    """Pass the body on until it is too large. HTTPException 413 then."""
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise HTTPException(413, f"more than {MOST_BYTES // 2**20} MiB in one upload; choose fewer or smaller pictures")
        yield part


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
