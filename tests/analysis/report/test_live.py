"""The page that follows a search: who may ask, and what is answered."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import rmse_study

from autoprune.analysis.benchmarks.browser import CHROMIUM, NAMES, Browser
from autoprune.analysis.report.live import LivePage, open_server
from autoprune.errors import InputError
from autoprune.study.log import append_line


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[ThreadingHTTPServer, LivePage, Path]]:
    folder = rmse_study.write(tmp_path / "trees")
    live = LivePage(folder.path)
    with open_server(live, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server, live, folder.outcomes
        server.shutdown()
        thread.join()


def ask(server: ThreadingHTTPServer, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", path, headers={"Host": f"{host}:{server.server_port}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_page_follows_the_study(served: tuple[ThreadingHTTPServer, LivePage, Path]) -> None:
    server, live, outcomes = served
    status, page = ask(server, "/")
    before = ask(server, "/stamp")

    assert status == 200
    assert f'data-stamp="{before[1]}"' in page
    assert "connect-src 'self'" in page
    assert live.page() is live.page()  # nothing has changed: it is not written again
    append_line(outcomes, rmse_study.line(19, 1.9, 0.45))
    assert ask(server, "/stamp")[1] != before[1]
    assert "reaches 1.9" in ask(server, "/")[1].replace("\N{NO-BREAK SPACE}", " ")


def test_only_this_machine_and_only_the_page(served: tuple[ThreadingHTTPServer, LivePage, Path]) -> None:
    server, _, _ = served

    assert ask(server, "/", host="elsewhere.example") == (403, "only this machine may ask")
    assert ask(server, "/study.yaml")[0] == 404
    assert ask(server, "/../study.yaml")[0] == 404
    assert ask(server, "/stamp", host="localhost")[0] == 200


def test_a_study_that_cannot_be_read_is_said(served: tuple[ThreadingHTTPServer, LivePage, Path]) -> None:
    server, _, outcomes = served
    append_line(outcomes, "{}")
    status, text = ask(server, "/")

    assert status == 503
    assert "outcomes.jsonl:8" in text


def test_a_port_that_is_taken(served: tuple[ThreadingHTTPServer, LivePage, Path]) -> None:
    server, live, _ = served

    with pytest.raises(InputError, match=r"--port: port \d+ cannot be opened: Address already in use"):
        open_server(live, server.server_port)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is on the PATH")
def test_an_open_page_renews_itself_and_keeps_what_was_chosen(
    served: tuple[ThreadingHTTPServer, LivePage, Path], browser: Browser
) -> None:
    server, _, outcomes = served
    ready = "document.documentElement?.dataset.ready === 'true'"
    browser.open(f"http://127.0.0.1:{server.server_port}/")
    browser.wait(ready)
    browser.js("document.getElementById('axis').value = 'params'; useAxis('params'); select(3)")

    append_line(outcomes, rmse_study.line(19, 1.9, 0.45))
    browser.js("lookAgain()")

    browser.wait(f"{ready} && page.rowOf?.has(19)")
    browser.wait("page.selected === 3 && page.axis.key === 'params'")
    assert browser.errors == []
