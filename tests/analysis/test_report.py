"""The ten questions that somebody has on Monday morning, each answered in the report by one look or two clicks."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from autoprune.analysis.benchmarks.browser import CHROMIUM, NAMES, Browser
from autoprune.analysis.benchmarks.report_studies import write_study
from autoprune.analysis.report.page import write_report
from autoprune.analysis.report.peers import read_peer
from autoprune.analysis.report.retrained import with_finalists
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is on the PATH"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """170 trials of six methods, with lineages, finalists, and failures of four kinds."""
    return write_study(tmp_path_factory.mktemp("monday") / "this week", 170)


def open_page(browser: Browser, page: Path, **options: Any) -> None:
    browser.open(page, **options)
    browser.wait("document.documentElement.dataset.ready === 'true'")


@pytest.fixture(scope="module")
def page(study: Study) -> Path:
    """Its report."""
    return write_report(study, study.folder.report)


@pytest.fixture
def report(browser: Browser, page: Path) -> Browser:
    """That report, open; a test may find it as the one before has left it."""
    if browser.shows != (page.as_uri(), False, (1440, 900)):
        open_page(browser, page, size=(1440, 900))
    return browser


def text(browser: Browser, selector: str) -> str:
    """The text of the first element, with single spaces."""
    return " ".join(str(browser.js(f"document.querySelector(`{selector}`).textContent")).split())


def cells(browser: Browser, selector: str) -> list[list[str]]:
    """The texts in each child of the elements."""
    rows = f"[...document.querySelectorAll(`{selector}`)].map(row => [...row.children].map(cell => cell.textContent))"
    return list(browser.js(rows))


def completed(study: Study) -> list[Outcome]:
    """Pruned models, those that were trained again as they are then."""
    shown = with_finalists(study)
    return [one for one in shown.outcomes if one.completed and one.recipe.method.name != "dense"]


def test_the_smallest_model_within_a_point_of_the_dense_one(report: Browser, study: Study) -> None:
    near = [one for one in completed(study) if (one.metric or 0.0) >= 0.9262 - 0.01]
    smallest = min(near, key=lambda one: one.flops_ratio or 0.0)

    report.js("useAxis('flops'); document.getElementById('limit-cost').value = 1000; 0")
    report.js("document.getElementById('near-dense').click()")

    found = text(report, "#limit-result")
    assert found.startswith(f"{len(near)} models meet that. Cheapest: trial {smallest.id} (")
    report.js("document.querySelector('#limit-result button').click()")
    assert text(report, "#panel-title") == f"Trial {smallest.id}, {smallest.recipe.method.name}"


def test_faster_than_five_milliseconds_on_four_threads(report: Browser, study: Study) -> None:
    axis = report.js("const axis = document.getElementById('axis'); [...axis.options].at(-1).textContent.trim()")
    assert axis == "Latency in ms (cpu, 4 threads, batch 1)"

    report.js("document.getElementById('limit-metric').value = 0")
    report.js("axis.value = 'latency_ms'; axis.dispatchEvent(new Event('change'))")
    most = report.js(
        "const slider = document.getElementById('limit-cost'); slider.value = Math.floor(1000 * 5 / page.mostCost);"
        "slider.dispatchEvent(new Event('input')); limits().cost"
    )

    assert 4.98 < most <= 5
    fast = [one for one in completed(study) if (one.latency_ms or 9.0) <= most]
    best = max(fast, key=lambda one: one.metric or 0.0)
    assert f", best: trial {best.id} (" in text(report, "#limit-result")
    assert report.js("page.plots.get('front').element._fullLayout.xaxis.title.text") == axis


def test_which_method_won_at_half_the_cost_and_by_more_than_noise(report: Browser) -> None:
    rows = report.js("[...document.querySelectorAll('#bands tbody tr')].map(row => row.textContent)")
    (half,) = [" ".join(row.split()) for row in rows if row.strip().startswith("40\N{NO-BREAK SPACE}% to 50")]

    assert re.search(r"^40 % to 50 % \w+ \(trial \d+\) 9\d\.\d\d % ?\d+ \d\.\d points better than \w+", half), half
    assert re.search(r"points better, more than noise \(±\d\.\d points\)$", half), half  # than random pruning
    assert "removing channels at random" in text(report, ".verdict")


def test_why_trials_failed(report: Browser, study: Study) -> None:
    rows = report.js("[...document.querySelectorAll('#failure-kinds tbody tr')].map(row => row.textContent)")
    failed = [one for one in study.outcomes if one.status == "failed"]

    assert len(rows) == len({(one.error or "")[:10] for one in failed})
    assert "CUDA out of memory. Tried to allocate … GiB" in rows[0]
    hinge = [one for one in failed if one.recipe.method.name == "hinge" and "CUDA" in (one.error or "")]
    assert f"method hinge: {len(hinge)} of " in rows[0]
    assert f"{len(failed)} failed trials are not drawn: why" in text(report, "figcaption")


def test_whether_stopping_at_half_can_be_trusted(report: Browser) -> None:
    rows = report.js("[...document.querySelectorAll('#trust tbody tr')].map(row => row.textContent)")

    assert [re.findall(r"(\d+)\N{NO-BREAK SPACE}% of the training", row) for row in rows] == [["0"], ["10"], ["30"]]
    assert all(re.search("(yes|partly|no): ", row) for row in rows)


def test_what_it_cost(report: Browser, study: Study) -> None:
    rows = dict(
        report.js("[...document.querySelectorAll('#cost dl div')].map(d => [...d.children].map(c => c.textContent))")
    )
    hours = sum(one.duration for one in study.outcomes) / 3600

    assert float(rows["GPU-hours of the search"]) == pytest.approx(hours, rel=1e-2)
    assert "min" in rows["From start to end"]
    assert "GPU-hours of finalists" in rows


def test_what_the_third_block_is_like(report: Browser, study: Study) -> None:
    member = with_finalists(study).front[0]
    report.js(f"select({member.id})")

    rows = report.js(
        "[...document.querySelectorAll('#panel-widths tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    third = {name: kept for name, _, kept in rows if name.startswith("layer3.")}
    assert third["layer3.0.conv1"] == f"{member.widths['layer3.0.conv1']}/64"
    assert len(third) == 4


def test_how_to_reproduce_it(report: Browser, study: Study) -> None:
    member = study.front[0]
    report.js(f"select({member.id})")
    report.js(
        "let copied = ''; const board = {writeText: async text => { copied = text; }};"
        "Object.defineProperty(navigator, 'clipboard', {value: board}); 0"
    )

    report.js("[...document.querySelectorAll('#panel-commands button')].at(-1).click()")

    report.wait("copied !== ''")
    assert report.js("copied") == f"autoprune replay '{study.folder.path}' --trial {member.id}"
    assert f"autoprune export '{study.folder.path}' --trial {member.id}" in text(report, "#panel-commands")


def test_whether_the_last_study_was_better(browser: Browser, study: Study, tmp_path: Path) -> None:
    last = write_study(tmp_path / "last week", 60, seed=11)
    published = tmp_path / "published.csv"
    published.write_text("name,accuracy,flops_ratio,source\nFPGM,0.9109,0.458,<b>He et al. 2019</b>\n")
    peers = [read_peer(path, study.metric) for path in (last.folder.path, published)]
    open_page(browser, write_report(study, study.folder.comparison, peers), size=(1440, 900))

    assert re.search(
        r"At half the FLOPs this study is (better|worse) than last week by \d\.\d points, (within|more than) noise",
        text(browser, "#peers"),
    )
    assert "FPGM: 91.09 % at 45.8 % FLOPs (<b>He et al. 2019</b>)" in text(browser, "#peers ul")
    marks = "page.plots.get('front').figure.data.filter(t => t.meta === 'peer').map(t => [t.name, t.x.length])"
    assert browser.js(marks) == [["last week", len(with_finalists(last).front)], ["published", 1]]
    browser.js("useAxis('latency_ms')")
    assert browser.js(f"{marks.replace('.length', '.filter(x => x !== null).length')}[1]") == ["published", 0]
    assert browser.errors == []


class TestTheFigureForThePaper:
    def test_svg_is_light_on_a_dark_page(self, browser: Browser, page: Path) -> None:
        open_page(browser, page, dark=True)
        browser.js(
            "let saved = null; HTMLAnchorElement.prototype.click = function () { saved = [this.download, this.href]; }"
        )

        browser.js("document.getElementById('save-svg').click()")

        browser.wait("saved !== null")
        name, address = browser.js("saved")
        drawn = unquote(address.partition(",")[2])
        assert (name, address.partition(",")[0]) == ("front.svg", "data:image/svg+xml")
        assert 'width="640" height="420"' in drawn
        assert "rgb(255, 255, 255)" in drawn  # the back
        assert "rgb(228, 231, 235)" not in drawn  # the ink of dark pages

    def test_pdf_is_one_page_of_its_size(self, report: Browser) -> None:
        report.js("let asked = false; window.print = () => { asked = true; }")
        report.js("document.getElementById('save-pdf').click()")
        report.wait("asked")

        printed = base64.b64decode(report.call("Page.printToPDF", preferCSSPageSize=True)["data"])
        assert re.findall(rb"/Count (\d+)", printed) == [b"1"]
        assert b"/MediaBox [0 0 480 315" in printed  # 640 by 420 pixels
        report.wait("document.getElementById('paper') === null")


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_picture_is_above_the_fold(browser: Browser, page: Path, width: int, height: int) -> None:
    open_page(browser, page, size=(width, height))

    top, bottom = browser.js(
        "(({top, bottom}) => [top, bottom])(document.querySelector('#plot-front .main-svg').getBoundingClientRect())"
    )
    assert top < 0.45 * height
    assert bottom < height
    assert browser.js("document.documentElement.scrollWidth") <= width


def test_print_keeps_recipes(report: Browser) -> None:
    report.call("Emulation.setEmulatedMedia", media="print")

    shown = "getComputedStyle(document.querySelector('#members .how')).display"
    assert report.js(shown) != "none"
    assert "are removed down to" in text(report, "#members .how")
    assert report.js("getComputedStyle(document.querySelector('nav')).display") == "none"
    report.call("Emulation.setEmulatedMedia", media="")


def test_noise_and_limits_are_shown_in_the_picture(report: Browser) -> None:
    report.js(
        "document.getElementById('axis').value = 'flops'; useAxis('flops');"
        "document.getElementById('limit-cost').value = 1000; document.getElementById('noise').click();"
        "document.getElementById('near-dense').click(); select(page.data.axes[0].line[0])"
    )

    assert report.js("page.plots.get('front').element._fullData.find(t => t.meta === 'noise').visible") is True
    shapes = report.js("page.plots.get('front').element.layout.shapes.map(s => s.name)")
    assert shapes == ["ink", "limit", "chosen"]
    assert report.errors == []
