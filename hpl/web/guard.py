"""Who may ask the server: this machine's own pages, or whoever knows the token. ASGI, around the whole application."""

import hmac
import ipaddress
import re
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "hpl_token"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any referrer, browsers hide the origin of our own form too
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address, without port, is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuse what no page of this server would ask, and add the headers that tell a browser to hold to that.

    Without a token, a request must name this machine as its host: a foreign name that leads here (DNS rebinding) is refused. With
    one, every request must bear it: as `Authorization: Bearer`, or in the cookie that an address with `?token=` sets.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Stand before `app`; `token` is None where only this machine can reach the server."""
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None  # there is no websocket

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope) or self.app
        return await answer(scope, receive, told)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.token is None and not is_loopback(re.sub(r":\d*$", "", host)):
            return PlainTextResponse(f"Host {host!r}: this server answers to 127.0.0.1 and localhost alone\n", 403)
        if self.token is not None and not self._bears_token(headers):
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if scope["method"] == "GET" and hmac.compare_digest(given.encode(), self.token.encode()):
                entered = RedirectResponse("/", 303)
                entered.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
                return entered
            return PlainTextResponse("a token is needed: open the address that `hpl serve` printed\n", 401)
        if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-dest") != "document" or scope["method"] != "GET"
        ):
            return PlainTextResponse("another site's page may not ask this server\n", 403)
        if scope["method"] not in ("GET", "HEAD") and headers.get("origin") not in (f"http://{host}", f"https://{host}"):
            return PlainTextResponse(f"Origin {headers.get('origin')!r}: expected this server's own page\n", 403)
        return None

    def _bears_token(self, headers: Headers) -> bool:
        assert self.token is not None
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        given = [bearer, cookies[COOKIE].value if COOKIE in cookies else ""]
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in given)
