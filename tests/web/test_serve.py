"""`hpl serve` as a process, and in a real browser: by keyboard, on a phone and on a desk, asking no other host."""

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from hpl.search.gallery import Gallery
from tests.support.chromium import Browser, asked, complaints
from tests.support.served import HPL, served


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    with served(gallery.store.folder) as told:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", told)
        yield told


def test_twenty_clients_at_once(address: str) -> None:
    def ask(number: int) -> tuple[int, int]:
        with urlopen(f"{address}?q=a+man+number+{number % 3}&k=4", timeout=60) as answer:
            return answer.status, answer.read().count(b'name="picture"')

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(ask, range(60))) == {(200, 4)}


def test_a_port_in_use_and_a_model_that_is_gone_are_one_line(address: str, gallery: Gallery, tmp_path: Path) -> None:
    port = address.rstrip("/").rsplit(":", 1)[1]
    used = subprocess.run([*HPL, "serve", str(gallery.store.folder), "--port", port], capture_output=True, text=True)
    assert used.returncode == 2 and "cannot be listened on" in used.stderr and used.stderr.count("\n") == 1
    none = subprocess.run([*HPL, "serve", str(tmp_path / "none")], capture_output=True, text=True)
    assert none.returncode == 2 and none.stderr.count("\n") == 1


def test_other_machines_need_a_token(gallery: Gallery) -> None:
    with served(gallery.store.folder, "--host", "0.0.0.0") as address:
        told = re.fullmatch(r"http://0\.0\.0\.0:(\d+)/\?token=([\w-]{32})", address)
        with pytest.raises(Exception, match="401"):
            urlopen(f"http://127.0.0.1:{told[1]}/", timeout=60)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_asks_no_other_host(tab: Browser, address: str, width: int, scheme: str) -> None:
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    for page in ("", "?q=a+man&like=2&wrong=3&camera=1&camera=2", "compare?picture=1&picture=2"):
        events = tab.open(address + page, width)
        assert [each for each in asked(events) if not each.startswith((address, "data:"))] == []
        assert complaints(events) == []
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate("[...document.images].every(image => image.alt)")
        assert tab.evaluate(
            "document.images.length > 0 && [...document.images].slice(0, 2).every(image => image.naturalWidth > 0)"
        )
    dark = tab.evaluate("getComputedStyle(document.documentElement).colorScheme")
    assert "dark" in dark
    ground = tab.evaluate(
        "(() => { const e = document.createElement('p'); e.style.color = 'CanvasText'; document.body.append(e); "
        "return getComputedStyle(e).color; })()"
    )
    assert ground == ("rgb(255, 255, 255)" if scheme == "dark" else "rgb(0, 0, 0)")


def press(tab: Browser, key: str, code: int, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        told = {"text": text} if text and kind == "keyDown" else {}
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **told)


def settle(tab: Browser, wanted: str) -> None:
    """Wait until the tab's address holds a text."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)
        try:
            if wanted in tab.evaluate("document.readyState == 'complete' ? location.href : ''"):
                return
        except AssertionError:  # the page went away while it was asked
            pass
    raise AssertionError(tab.evaluate("location.href"))


def test_it_works_by_keyboard_alone(tab: Browser, address: str, gallery: Gallery) -> None:
    tab.open(address, 1280)
    tab.call("Input.insertText", text="a man")  # the sentence's field has the focus
    press(tab, "Enter", 13, "\r")
    settle(tab, "?q=a+man")
    first = gallery.search(text="a man", k=1)[0].id
    for _ in range(30):
        press(tab, "Tab", 9)
        if tab.evaluate("document.activeElement.getAttribute('aria-label')") == f"picture {first} is right":
            break
    press(tab, "Enter", 13, "\r")
    settle(tab, f"like={first}")
    assert tab.evaluate("document.querySelector('.is-right img').getAttribute('src')") == f"/picture/{first}"


def test_a_dropped_picture_is_searched(tab: Browser, address: str, gallery: Gallery) -> None:
    tab.open(address, 390)
    node = tab.call("DOM.querySelector", nodeId=tab.call("DOM.getDocument")["root"]["nodeId"], selector="input[type=file]")
    tab.call("DOM.setFileInputFiles", files=[gallery.picture(4).path], nodeId=node["nodeId"])
    tab.evaluate("document.querySelector('form.ask button').click()")
    settle(tab, "upload=")
    assert tab.evaluate("document.querySelector('.results [name=picture]').value") == "4"
