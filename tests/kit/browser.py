"""A real browser, driven over a pipe by its DevTools protocol: Chromium, headless, without network.

    chromium --remote-debugging-pipe ── descriptors 3 and 4 ── JSON messages, each ended by a NUL

Console messages, exceptions and requests that a page makes are kept, so that a test can say there were none.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", "--no-first-run",
    "--disable-background-networking", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
)  # fmt: skip
ANSWER_S = 60.0


class Browser:
    """One page at a time."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._number = 0
        self._rest = b""
        self._session = ""
        self.said: list[str] = []
        """What the page wrote to the console, and its exceptions."""
        self.asked: list[str] = []
        """Addresses that the page asked for, itself included."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The answer of the browser. RuntimeError if it refuses."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            answer = self._hear()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
        raise RuntimeError(f"{method}: no answer in {ANSWER_S} s")

    def open(self, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file; returns when it is loaded."""
        self.said.clear()
        self.asked.clear()
        self.look(width=width, height=height, dark=dark)
        self.call("Page.navigate", url=file.as_uri())
        while not self.value("document.readyState === 'complete' && location.protocol === 'file:'"):
            time.sleep(0.02)

    def look(self, *, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        """The window's size, the colour scheme, the medium."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to. RuntimeError if it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, file: Path, *, whole: bool = False, height: int = 0) -> None:
        """The window as PNG or WebP, by the file's suffix; the whole page, or its first *height* pixels, if asked."""
        if whole or height:
            height = height or int(self.value("document.documentElement.scrollHeight"))
            width = int(self.value("innerWidth"))
            self.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
        how = {"format": "webp", "quality": 82} if file.suffix == ".webp" else {"format": "png"}
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **how)["data"]))

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._back, 1 << 20)
            if not piece:
                raise RuntimeError("the browser is gone")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.consoleAPICalled":
            self.said.append(str(parameters["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(parameters["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded":
            self.said.append(parameters["entry"]["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])
        return message


def program() -> str:
    """Where the browser is; "" if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), "")


@contextmanager
def browser() -> Iterator[Browser]:
    """RuntimeError if there is none: apt install chromium."""
    found = program()
    if not found:
        raise RuntimeError("no Chromium on PATH: apt install chromium")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(prefix="kit-browser-", ignore_cleanup_errors=True) as profile:
        # The browser reads from descriptor 3 and writes to 4; a shell puts ours there.
        line = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        child = subprocess.Popen(
            ["bash", "-c", line, "browser", found, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "HOME": profile, "LANG": "C.UTF-8"}, start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(ours_out, ours_in)
        finally:
            os.close(ours_out)
            os.close(ours_in)
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
