"""The server of the page: where it listens, and who is let in."""

import secrets
import socket
import sys
import threading
import webbrowser

import uvicorn

from hpl.files import HplError
from hpl.search.gallery import Gallery
from hpl.web.app import make_app
from hpl.web.guard import is_loopback


def run_server(gallery: Gallery, host: str, port: int, token: str | None, show: bool = False) -> None:
    """Answer until the process is stopped. The address is told on stderr.

    Args:
        host: address to listen on; one that other machines can reach asks for a token.
        port: 0: a free one.
        token: None: none on this machine alone, else a fresh one, told with the address.
        show: open the page in this machine's browser.

    Raises:
        HplError: the address cannot be listened on, or the gallery's model is not there.
    """
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    listening = _listen(host, port)
    with listening:
        app = make_app(gallery, token)
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/{'' if token is None else f'?token={token}'}"
        print(f"{len(gallery)} pictures, at {address}  (Ctrl-C stops)", file=sys.stderr, flush=True)
        if show:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # a browser in the terminal would wait
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=5
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)  # who comes early waits
    except (OSError, OverflowError) as error:
        listening.close()
        raise HplError(f"{host}:{port}: cannot be listened on ({error}); expected a free port, such as --port 0") from None
    return listening
