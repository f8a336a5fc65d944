"""The report of a search that runs, as a page on this machine that renews itself: `autoprune report DIR --watch`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from autoprune.analysis.report.page import render_report
from autoprune.analysis.report.peers import Peer
from autoprune.errors import AutopruneError, InputError
from autoprune.study.folder import StudyFolder, load_study

#: Only this machine can ask.
HOST = "127.0.0.1"


class LivePage:
    """The newest report of a study; written again only when the study has changed and somebody asks.

    Args:
        folder: of the study.
        peers: what is laid over it.
    """

    def __init__(self, folder: Path, peers: Sequence[Peer] = ()) -> None:
        self._folder, self._peers = StudyFolder(folder), peers
        self._lock = threading.Lock()
        self._stamp, self._page = "", ""

    def stamp(self) -> str:
        """Which state the study is in: the sizes of its logs."""
        logs = (self._folder.config, self._folder.outcomes, self._folder.finalists)
        return "-".join(str(log.stat().st_size if log.exists() else 0) for log in logs)

    def page(self) -> str:
        """The report of that state."""
        with self._lock:
            if (stamp := self.stamp()) != self._stamp:
                self._page = render_report(load_study(self._folder.path), self._peers, stamp)
                self._stamp = stamp
            return self._page


def open_server(live: LivePage, port: int) -> ThreadingHTTPServer:
    """A server of the page at `http://127.0.0.1:port/`, to be run with `serve_forever` and closed.

    Args:
        live: see above.
        port: 0 = one that is free.

    Raises:
        InputError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, live)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server calls it
            """The terminal is the user's: nothing is printed for each request."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        what = f"port {port} cannot be opened: {error.strerror or error}"
        raise InputError(what, where="--port", allowed="another one, or 0 for one that is free") from None


def answer(request: BaseHTTPRequestHandler, live: LivePage) -> None:
    """The page, its stamp, or an error in one line; names other than this machine's are refused."""
    named = (request.headers.get("Host") or "").rpartition(":")[0]
    if named not in (HOST, "localhost"):  # a page from elsewhere may have its name point here
        _send(request, HTTPStatus.FORBIDDEN, "only this machine may ask", "text/plain")
        return
    pages = {"/": (live.page, "text/html"), "/stamp": (live.stamp, "text/plain")}
    if request.path not in pages:
        _send(request, HTTPStatus.NOT_FOUND, "there is nothing here", "text/plain")
        return
    make, kind = pages[request.path]
    try:
        _send(request, HTTPStatus.OK, make(), kind)
    except (AutopruneError, OSError) as error:
        _send(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error), "text/plain")


def _send(request: BaseHTTPRequestHandler, status: HTTPStatus, text: str, kind: str) -> None:
    body = text.encode()
    request.send_response(status)
    for name, value in (
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ):
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)
