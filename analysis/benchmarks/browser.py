"""A headless Chromium that pages are looked at with: it opens a file, clicks, types, and notes every error and request.

Chromium is spoken to over its debugging pipe (file descriptors 3 and 4, messages of JSON that end in a zero byte), so
that no port is opened and no client library is needed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--remote-debugging-pipe", "--window-size=1100,900"),
    "--disable-dev-shm-usage",  # containers often have next to none
    "--proxy-server=127.0.0.1:9",  # nothing listens there, so nothing that is not a file can be fetched
)
PATIENCE = 60.0
_KEY_NUMBERS = {"Enter": 13, "Space": 32, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}


class Browser:
    """One tab of a headless Chromium: open a file, evaluate JavaScript, remember every error and every request.

    Fields:
        shows: address, darkness and size that were opened last.
        errors, requests: since then.
    """

    def __init__(self, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (ours[0], theirs[1]))
        shell = f'exec "$@" 3<&{reading} 4>&{writing}'
        command = ["bash", "-c", shell, "bash", str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        with (profile.parent / "chromium.log").open("wb") as log:
            self.process = subprocess.Popen(command, pass_fds=(reading, writing), stdout=log, stderr=log)  # noqa: S603 - ours
        for fd in (ours[0], theirs[1], reading, writing):
            os.close(fd)
        self._to, self._from = ours[1], theirs[0]
        self._buffer, self._count, self._session, self._target = b"", 0, "", ""
        self.shows: tuple[str, bool, tuple[int, int]] | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []

    def open(self, page: Path | str, *, dark: bool = False, size: tuple[int, int] = (1100, 900)) -> None:
        """Open a file or an address in a new tab and wait until it has loaded; what was noted before is forgotten.

        Args:
            page: see above.
            dark: whether the page is told that its reader prefers dark pages.
            size: of the window, in pixels; below 600 wide it is that of a phone.
        """
        before, self._session = self._target, ""
        self._target = target = self.call("Target.createTarget", url="about:blank")["targetId"]
        if before:
            self.call("Target.closeTarget", targetId=before)  # it would go on taking time
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        width, height = size
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **shape)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.errors.clear()
        self.requests.clear()
        address = page.as_uri() if isinstance(page, Path) else page
        self.shows = (address, dark, size)
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page, of a promise what it comes to."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a condition holds; `AssertionError` if it does not within a minute."""
        end = time.monotonic() + PATIENCE
        while not self.js(condition):
            assert time.monotonic() < end, f"never became true: {condition}"
            time.sleep(0.05)

    def click(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window and press it."""
        mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **mouse)

    def press(self, key: str, shift: bool = False) -> None:
        """Press a key by its name, as `ArrowRight` or `Enter`, in what has the focus."""
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        kind = {"key": " " if key == "Space" else key, "code": key, "modifiers": 8 * shift, "text": text}
        kind["windowsVirtualKeyCode"] = _KEY_NUMBERS[key]
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **kind)
        self.call("Input.dispatchKeyEvent", type="keyUp", **kind)

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """Write what the window shows, or the whole page, as PNG or WebP by the file's name."""
        kind = {"format": path.suffix[1:], "captureBeyondViewport": whole}
        if path.suffix == ".webp":
            kind["quality"] = 80
        if whole:
            size = self.js("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
            kind["clip"] = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **kind)["data"]))
        return path

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its result; `AssertionError` if it is refused."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (reply := self._next()).get("id") != self._count:
            self._note(reply)
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply.get("result", {})

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self.call("Browser.close")
        self.process.wait(PATIENCE)
        os.close(self._to)
        os.close(self._from)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._from, 1 << 16)
            assert chunk, "the browser ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        name, params = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
        if name == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.errors.append(f"console: {params['args']}")
        if name == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.errors.append(f"log: {params['entry']['text']}")
        if name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
