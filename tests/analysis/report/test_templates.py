"""The report in a real browser without a network: it draws, it reacts, it makes no error.

Chromium is spoken to over its debugging pipe (file descriptors 3 and 4, messages of JSON that end in a zero byte), so
that no port is opened and no client library is needed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.report.page import write_report
from autoprune.study import pareto
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--remote-debugging-pipe", "--window-size=1100,900"),
    "--disable-dev-shm-usage",  # containers often have next to none
    "--proxy-server=127.0.0.1:9",  # nothing listens there, so nothing that is not a file can be fetched
)
PATIENCE = 60.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is on the PATH"),
]


class Browser:
    """One tab of a headless Chromium: open a file, evaluate JavaScript, remember every error and every request."""

    def __init__(self, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (ours[0], theirs[1]))
        shell = f'exec "$@" 3<&{reading} 4>&{writing}'
        command = ["bash", "-c", shell, "bash", str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        with (profile.parent / "chromium.log").open("wb") as log:
            self.process = subprocess.Popen(command, pass_fds=(reading, writing), stdout=log, stderr=log)
        for fd in (ours[0], theirs[1], reading, writing):
            os.close(fd)
        self._to, self._from = ours[1], theirs[0]
        self._buffer, self._count, self._session = b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []

    def open(self, path: Path, *, dark: bool = False) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.js(condition):
            assert time.monotonic() < end, f"never became true: {condition}"
            time.sleep(0.05)

    def click(self, x: float, y: float) -> None:
        mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **mouse)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield running
    running.close()


def measured(study: Study) -> list[Outcome]:
    return [outcome for outcome in study.outcomes if outcome.status != "failed"]


def open_report(browser: Browser, study: Study, **options: Any) -> None:
    browser.open(write_report(study, study.folder.report), **options)


def is_silent(browser: Browser, study: Study) -> bool:
    """No error, and nothing asked for but the page itself and what it holds."""
    browser.js("0")  # whatever was reported before this answer has been noted
    outside = [url for url in browser.requests if not url.startswith(("data:", "blob:"))]
    assert browser.errors == []
    return outside == [study.folder.report.as_uri()]


def drawn(browser: Browser, plot: str, what: str) -> int:
    return int(browser.js(f"document.querySelectorAll('#plot-{plot} {what}').length"))


def test_every_plot_is_drawn(browser: Browser, study: Study) -> None:
    open_report(browser, study)
    browser.js("document.querySelector('[data-range=all]').click()")

    assert drawn(browser, "front", ".scatterlayer .points path.point") == len(measured(study))
    assert drawn(browser, "methods", ".scatterlayer .points path.point") > 10
    assert drawn(browser, "hypervolume", ".scatterlayer path.js-line") == 1
    assert drawn(browser, "time", ".barlayer .point") == 7
    assert drawn(browser, "widths", ".barlayer .point") == 8
    assert browser.js("document.getElementById('script-error').hidden") is True
    assert is_silent(browser, study)


def test_no_button_sends_the_chart_anywhere(browser: Browser, study: Study) -> None:
    open_report(browser, study)

    titles = browser.js("[...document.querySelectorAll('#plot-front .modebar-btn')].map(b => b.dataset.title)")
    assert [title.lower() for title in titles] == ["download plot as a png", "zoom", "pan", "reset axes"]


WIDTHS = "[...document.querySelectorAll('#plot-widths .barlayer .bartext')].map(t => t.textContent)"


def expected_widths(outcome: Outcome) -> list[str]:
    sizes = {"conv1": 17, "layer1.0.conv1": 19, "layer2.0.conv1": 31, "layer3.0.conv1": 67}
    return [f"{outcome.widths[group]}/{size}" for group, size in sizes.items()]


class TestChoosingATrial:
    def test_by_the_list(self, browser: Browser, study: Study) -> None:
        first, *_, last = pareto.front(study.outcomes)
        open_report(browser, study)

        for member in (first, last):
            browser.js(
                f"const s{member.id} = document.getElementById('widths-trial'); s{member.id}.value = '{member.id}';"
                f"s{member.id}.dispatchEvent(new Event('change'))"
            )
            assert browser.js(WIDTHS) == expected_widths(member)
        assert expected_widths(first) != expected_widths(last)
        assert is_silent(browser, study)

    def test_by_the_table(self, browser: Browser, study: Study) -> None:
        last = pareto.front(study.outcomes)[-1]
        open_report(browser, study)

        browser.js(f"document.querySelector('#members [data-show=\"{last.id}\"]').click()")

        assert browser.js(WIDTHS) == expected_widths(last)
        assert browser.js("document.getElementById('widths-trial').value") == str(last.id)
        assert f"trial {last.id}, " in browser.js("document.getElementById('widths-text').textContent")

    def test_by_a_click_on_its_mark(self, browser: Browser, study: Study) -> None:
        member = pareto.front(study.outcomes)[0]
        open_report(browser, study)
        assert browser.js(WIDTHS) != expected_widths(member)

        browser.js("document.getElementById('plot-front').scrollIntoView({behavior: 'instant'})")
        where = browser.js(f"""(() => {{
            const plot = document.getElementById("plot-front"), box = plot.getBoundingClientRect();
            const {{ _offset: left }} = plot._fullLayout.xaxis, {{ _offset: top }} = plot._fullLayout.yaxis;
            return [box.x + left + plot._fullLayout.xaxis.d2p({member.flops_ratio}),
                    box.y + top + plot._fullLayout.yaxis.d2p({member.accuracy})];
        }})()""")
        browser.click(*where)

        browser.wait(f"document.getElementById('widths-trial').value === '{member.id}'")
        assert browser.js(WIDTHS) == expected_widths(member)


class TestTrialsTable:
    column = "[...document.querySelectorAll('#trials-table tbody tr')].map(r => Number(r.cells[3].dataset.key))"
    heading = "document.querySelectorAll('#trials-table thead th')[3]"

    def test_sorts_by_number_both_ways(self, browser: Browser, study: Study) -> None:
        open_report(browser, study)
        before = browser.js(self.column)

        browser.js(f"{self.heading}.querySelector('button').click()")
        assert browser.js(self.column) == sorted(before)
        assert browser.js(f"{self.heading}.getAttribute('aria-sort')") == "ascending"
        browser.js(f"{self.heading}.querySelector('button').click()")
        assert browser.js(self.column) == sorted(before, reverse=True)
        assert before not in (sorted(before), sorted(before, reverse=True))

    def test_sorts_by_name(self, browser: Browser, study: Study) -> None:
        open_report(browser, study)

        browser.js("document.querySelectorAll('#trials-table thead th')[1].querySelector('button').click()")

        names = browser.js("[...document.querySelectorAll('#trials-table tbody tr')].map(r => r.cells[1].textContent)")
        assert names == sorted(outcome.recipe.method.name for outcome in study.outcomes)

    def test_filters(self, browser: Browser, study: Study) -> None:
        open_report(browser, study)

        browser.js(
            "const box = document.getElementById('trials-filter');"
            "box.value = 'TAYLOR'; box.dispatchEvent(new Event('input'))"
        )

        count = sum(outcome.recipe.method.name == "taylor" for outcome in study.outcomes)
        assert browser.js("document.querySelectorAll('#trials-table tbody tr:not([hidden])').length") == count
        assert browser.js("document.getElementById('trials-count').textContent") == f"{count} of {len(study.outcomes)}"


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_on_light_and_dark(browser: Browser, study: Study, dark: bool) -> None:
    open_report(browser, study, dark=dark)

    page, tick = browser.js(
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('#plot-front .xtick text')).fill]"
    )
    brightness = [sum(int(part) for part in colour[4:-1].split(",")) / 3 for colour in (page, tick)]
    assert (brightness[0] < brightness[1]) == dark
    assert abs(brightness[0] - brightness[1]) > 150


def test_eight_hundred_pixels_are_wide_enough(browser: Browser, study: Study) -> None:
    open_report(browser, study)
    browser.call("Emulation.setDeviceMetricsOverride", width=800, height=900, deviceScaleFactor=1, mobile=False)

    browser.wait("window.innerWidth === 800")
    browser.wait("document.documentElement.scrollWidth <= 800")  # plots follow a moment after the window
    assert browser.js("document.querySelector('#plot-front .main-svg').clientWidth") > 600


STATES = {
    "no outcomes": lambda build: [],  # the others need it
    "only failures": lambda build: [build.failed(i, "<script>boom") for i in range(1, 8)],
    "only stopped": lambda build: [build.stopped(3, 0.4, 0.6)],
    "one member": lambda build: [build.completed(3, 0.4, 0.88)],
    "2,000 outcomes": lambda build: build.many_outcomes(2_000),
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_study(browser: Browser, make_study: Any, build: SimpleNamespace, state: str) -> None:
    study = make_study(STATES[state](build))
    open_report(browser, study)
    browser.js("document.querySelector('[data-range=all]')?.click()")

    assert drawn(browser, "front", ".scatterlayer .points path.point") == len(measured(study))
    assert is_silent(browser, study)


def test_the_error_catcher_catches(browser: Browser, study: Study) -> None:
    """What the other tests rely on: an exception, a refused request and their traces are noted."""
    open_report(browser, study)

    browser.js("setTimeout(() => { throw new Error('on purpose') })")
    browser.js("new Image().src = 'http://127.0.0.1:9/pixel.png'")
    browser.wait("!document.getElementById('script-error').hidden")

    with pytest.raises(AssertionError, match="on purpose"):
        is_silent(browser, study)
    assert any("Content Security Policy" in error for error in browser.errors)
