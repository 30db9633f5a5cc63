"""Debian's chromium without a window, driven over a pipe by its DevTools protocol: what a page asks for, says, and shows."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage"]

_COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed")


def asked(events: list[dict]) -> list[str]:
    """The addresses that a page asked for."""
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def complaints(events: list[dict]) -> list[dict]:
    """What a page said on the console, threw, or failed to load."""
    return [event for event in events if event["method"] in _COMPLAINTS]


class Browser:
    """One tab."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers, self.number, self.rest, self.session = commands, answers, 0, b"", None
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        """Send a command and wait for its result; events that arrive meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str, width: int, height: int = 844) -> list[dict]:
        """Load a page in a window of a size, to its end. Returns the events on the way."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=width < 600)
        self.events = []
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        self.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null))).then(() => 0)")
        return self.events

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """The whole page as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _read(self) -> dict:
        while b"\0" not in self.rest:
            part = os.read(self.answers, 1 << 16)
            assert part, "chromium ended"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start chromium and end it."""
    reads, commands = os.pipe()
    answers, writes = os.pipe()
    inner = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]  # above the two numbers that chromium expects
    os.close(reads), os.close(writes)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{inner[0]} 4>&{inner[1]}', "-", *command],
            pass_fds=inner,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in inner:
            os.close(end)
        try:
            yield Browser(commands, answers)
        finally:
            process.kill()
            process.wait()
            os.close(commands), os.close(answers)
