"""The report in a real browser without a network: it draws, it reacts, it makes no error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.benchmarks.browser import CHROMIUM, NAMES, Browser
from autoprune.analysis.report.page import write_report
from autoprune.study import pareto
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is on the PATH"),
]


def measured(study: Study) -> list[Outcome]:
    return [outcome for outcome in study.outcomes if outcome.status != "failed"]


def open_report(browser: Browser, study: Study, **options: Any) -> None:
    browser.open(write_report(study, study.folder.report), **options)
    browser.wait("document.documentElement.dataset.ready === 'true' || !document.getElementById('script-error').hidden")


def is_silent(browser: Browser, study: Study) -> bool:
    """No error, and nothing asked for but the page itself and what it holds."""
    browser.js("0")  # whatever was reported before this answer has been noted
    outside = [url for url in browser.requests if not url.startswith(("data:", "blob:"))]
    assert browser.errors == []
    return outside == [study.folder.report.as_uri()]


def drawn(browser: Browser, plot: str, what: str) -> int:
    browser.js("drawAll()")
    return int(browser.js(f"document.querySelectorAll('#plot-{plot} {what}').length"))


def test_every_plot_is_drawn(browser: Browser, study: Study) -> None:
    open_report(browser, study)
    browser.js("document.querySelector('[data-range=all]').click()")

    assert drawn(browser, "front", ".scatterlayer .points path.point") == len(measured(study))
    assert drawn(browser, "methods", ".scatterlayer .points path.point") > 10
    assert drawn(browser, "hypervolume", ".scatterlayer path.js-line") == 1
    assert drawn(browser, "time", ".barlayer .point") == 7
    assert drawn(browser, "widths", ".heatmaplayer image") == 1
    assert drawn(browser, "parallel", ".scatterlayer path.js-line") > 5
    assert browser.js("document.getElementById('script-error').hidden") is True
    assert is_silent(browser, study)


def test_no_button_sends_the_chart_anywhere(browser: Browser, study: Study) -> None:
    open_report(browser, study)

    titles = browser.js("[...document.querySelectorAll('#plot-front .modebar-btn')].map(b => b.dataset.title)")
    assert [title.lower() for title in titles] == ["zoom", "pan", "reset axes"]


WIDTHS = "[...document.querySelectorAll('#panel-widths td.num')].map(t => t.textContent)"
TITLE = "document.getElementById('panel-title').textContent"


def expected_widths(outcome: Outcome) -> list[str]:
    sizes = {"conv1": 17, "layer1.0.conv1": 19, "layer2.0.conv1": 31, "layer3.0.conv1": 67}
    return [f"{outcome.widths[group]}/{size}" for group, size in sizes.items()]


def place_of(browser: Browser, outcome: Outcome) -> tuple[float, float]:
    """Where its mark is in the window."""
    browser.js("document.getElementById('plot-front').scrollIntoView({behavior: 'instant'})")
    x, y = browser.js(f"""(() => {{
        const plot = document.getElementById("plot-front"), box = plot.getBoundingClientRect();
        const {{ _offset: left }} = plot._fullLayout.xaxis, {{ _offset: top }} = plot._fullLayout.yaxis;
        return [box.x + left + plot._fullLayout.xaxis.d2p({outcome.flops_ratio}),
                box.y + top + plot._fullLayout.yaxis.d2p({outcome.accuracy})];
    }})()""")
    return x, y


class TestChoosingATrial:
    def test_by_the_table(self, browser: Browser, study: Study) -> None:
        first, *_, last = pareto.front(study.outcomes)
        open_report(browser, study)

        for member in (first, last):
            browser.js(f"document.querySelector('#members [data-show=\"{member.id}\"]').click()")
            assert browser.js(TITLE) == f"Trial {member.id}, {member.recipe.method.name}"
            assert browser.js(WIDTHS) == expected_widths(member)
        assert expected_widths(first) != expected_widths(last)
        assert is_silent(browser, study)

    def test_by_a_click_on_its_mark(self, browser: Browser, study: Study) -> None:
        member = pareto.front(study.outcomes)[0]
        open_report(browser, study)
        assert browser.js(WIDTHS) != expected_widths(member)

        browser.click(*place_of(browser, member))

        browser.wait(f"{TITLE}.startsWith('Trial {member.id},')")
        assert browser.js(WIDTHS) == expected_widths(member)

    def test_by_the_keyboard(self, browser: Browser, study: Study) -> None:
        members = pareto.front(study.outcomes)
        open_report(browser, study)
        browser.js(f"document.getElementById('plot-front').focus(); select({members[0].id})")

        browser.press("ArrowRight")
        assert browser.js("page.selected") == members[1].id
        browser.press("ArrowLeft")
        browser.press("ArrowLeft")  # there is nothing further left
        assert browser.js("page.selected") == members[0].id
        among_all = sorted((o for o in measured(study)), key=lambda o: o.flops_ratio or 0.0)
        place = [o.id for o in among_all].index(members[0].id)
        browser.press("ArrowRight", shift=True)
        assert browser.js("page.selected") == among_all[place + 1].id

    def test_its_address_opens_it_again(self, browser: Browser, study: Study) -> None:
        member = pareto.front(study.outcomes)[0]
        open_report(browser, study)
        browser.js(f"select({member.id})")
        address = browser.js("location.href")

        browser.open(address)
        browser.wait("document.documentElement.dataset.ready === 'true'")

        assert address.endswith(f"#trial-{member.id}")
        assert browser.js(TITLE).startswith(f"Trial {member.id},")


class TestTrialsTable:
    rows = "[...document.querySelectorAll('#trials-table tbody tr')].map(r => Number(r.cells[0].textContent))"
    place = "document.getElementById('trials-place').textContent"

    def test_sorts_by_number_both_ways(self, browser: Browser, study: Study) -> None:
        open_report(browser, study)
        heading = "document.querySelector('#trials-table [data-field=metric]')"
        known = [o for o in study.outcomes if o.status != "failed"]
        rising = [o.id for o in sorted(known, key=lambda o: o.rungs[-1].metric)]

        browser.js(f"{heading}.querySelector('button').click()")
        assert browser.js(self.rows)[: len(known)] == rising
        assert browser.js(f"{heading}.getAttribute('aria-sort')") == "ascending"
        browser.js(f"{heading}.querySelector('button').click()")
        assert browser.js(self.rows)[: len(known)] == rising[::-1]

    def test_filters(self, browser: Browser, study: Study) -> None:
        open_report(browser, study)

        browser.js(
            "const box = document.getElementById('trials-filter');"
            "box.value = 'TAYLOR'; box.dispatchEvent(new Event('input'))"
        )

        count = sum(outcome.recipe.method.name == "taylor" for outcome in study.outcomes)
        assert len(browser.js(self.rows)) == count
        assert browser.js("document.getElementById('trials-count').textContent") == f"{count} of {len(study.outcomes)}"

    def test_shows_a_hundred_at_a_time(self, browser: Browser, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study(build.many_outcomes(231))
        open_report(browser, study)
        ids = [outcome.id for outcome in study.outcomes]

        assert (browser.js(self.rows), browser.js(self.place)) == (ids[:100], "1 to 100 of 231")
        browser.js("document.getElementById('trials-after').click(); document.getElementById('trials-after').click()")
        assert (browser.js(self.rows), browser.js(self.place)) == (ids[200:], "201 to 231 of 231")
        assert browser.js("document.getElementById('trials-after').disabled") is True


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


@pytest.mark.parametrize("width", [390, 800])
def test_phones_and_half_a_screen_are_wide_enough(browser: Browser, study: Study, width: int) -> None:
    open_report(browser, study, size=(width, 844))

    browser.js("drawAll()")
    browser.wait(f"document.documentElement.scrollWidth <= {width}")
    assert browser.js("document.querySelector('#plot-front .main-svg').clientWidth") > 0.6 * width


def test_names_from_outside_stay_text(browser: Browser, make_study: Any, build: SimpleNamespace) -> None:
    evil = "<img src=//x onerror=alert(2)></script><script>alert(1)</script>"
    marked = build.completed(2, 0.5, 0.8, evil, worker=evil, widths={evil: 3}, notes={evil: evil})
    groups = [{"id": evil, "size": 5, "stage": 0, "frozen": None}]
    study = make_study([build.failed(1, evil), marked, build.completed(3, 0.7, 0.9)], groups=groups)
    open_report(browser, study)

    browser.js("drawAll(); select(2); filterTrials('img')")

    assert browser.js("document.querySelectorAll('img[src=\\'//x\\'], main script').length") == 0
    assert evil in browser.js("document.getElementById('panel').textContent")
    assert evil in browser.js("document.getElementById('trials-table').textContent")
    x, y = place_of(browser, marked)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    browser.wait("document.querySelector('#plot-front .hovertext') !== null")
    assert "<img" in browser.js("document.querySelector('#plot-front .hovertext').textContent")
    assert is_silent(browser, study)


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

    if measured(study):  # many marks are drawn after the page answers
        marks = "document.querySelectorAll('#plot-front .scatterlayer .points path.point').length"
        browser.wait(f"{marks} === {len(measured(study))}")
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
