"""`hpl serve` as a process, and in a real browser: by keyboard, on a phone and on a desk, asking no other host."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from hpl.search.gallery import Gallery
from tests.support.chromium import CHROMIUM, Browser, browser

HPL = [sys.executable, "-m", "hpl.cli"]
COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    command = [*HPL, "serve", str(gallery.store.folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in process.stderr)))[0]
        process.terminate()
        assert process.wait(20) is not None
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


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
    command = [*HPL, "serve", str(gallery.store.folder), "--port", "0", "--host", "0.0.0.0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        told = next(filter(None, (re.search(r"http://0\.0\.0\.0:(\d+)/\?token=([\w-]{32})", line) for line in process.stderr)))
        with pytest.raises(Exception, match="401"):
            urlopen(f"http://127.0.0.1:{told[1]}/", timeout=60)
    finally:
        process.kill()
        process.wait()


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_asks_no_other_host(tab: Browser, address: str, width: int, scheme: str) -> None:
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    for page in ("", "?q=a+man&like=2&wrong=3&camera=1&camera=2", "compare?picture=1&picture=2"):
        events = tab.open(address + page, width)
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert [each for each in asked if not each.startswith((address, "data:"))] == []
        assert [event for event in events if event["method"] in COMPLAINTS] == []
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


@needs_browser
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


@needs_browser
def test_a_dropped_picture_is_searched(tab: Browser, address: str, gallery: Gallery) -> None:
    tab.open(address, 390)
    node = tab.call("DOM.querySelector", nodeId=tab.call("DOM.getDocument")["root"]["nodeId"], selector="input[type=file]")
    tab.call("DOM.setFileInputFiles", files=[gallery.picture(4).path], nodeId=node["nodeId"])
    tab.evaluate("document.querySelector('form.ask button').click()")
    settle(tab, "upload=")
    assert tab.evaluate("document.querySelector('.results [name=picture]').value") == "4"
