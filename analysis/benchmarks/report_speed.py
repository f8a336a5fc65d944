"""How long a report takes to write and to open, and how large it is.

`python -m autoprune.analysis.benchmarks.report_speed` writes `report_speed.md`. Studies come from `report_studies`; the
browser is a headless Chromium without a GPU. Every time is the best of several: on a machine with other work that is
nearest to what it can do.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune.analysis.benchmarks.browser import CHROMIUM, Browser
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.analysis.benchmarks.report_studies import write_study
from autoprune.analysis.report.frames import write_pareto_csv
from autoprune.analysis.report.page import write_report
from autoprune.study.folder import load_study

READY = "document.documentElement.dataset.ready === 'true'"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one study.

    Fields:
        trials: its size.
        load, write: seconds to read the study, and to write report and front; `write_cpu` of the processor.
        megabytes: of the report, a million bytes each.
        open: seconds until the page has drawn its picture and answers.
        select: milliseconds until another model stands in the panel.
    """

    trials: int
    load: float
    write: float
    write_cpu: float
    megabytes: float
    open: float
    select: float


def measure(trials: int, times: int, folder: Path) -> Row:
    """One row.

    Args:
        trials: of the study.
        times: that each thing is done; the fastest counts.
        folder: an empty one.
    """
    write_study(folder / "study", trials)
    study = load_study(folder / "study")

    def write() -> None:
        write_report(study, study.folder.report)
        write_pareto_csv(study, study.folder.pareto)

    return Row(
        trials=trials,
        load=min(_seconds(lambda: load_study(folder / "study"), time.perf_counter) for _ in range(times)),
        write=min(_seconds(write, time.perf_counter) for _ in range(times)),
        write_cpu=min(_seconds(write, time.process_time) for _ in range(times)),
        megabytes=study.folder.report.stat().st_size / 1e6,
        **_opened(study.folder.report, times, folder),
    )


def _opened(report: Path, times: int, folder: Path) -> dict[str, float]:
    """Seconds until the page is there, milliseconds for a choice; not a number without a browser."""
    if CHROMIUM is None:
        return {"open": float("nan"), "select": float("nan")}
    browser, opens, selects = Browser(folder / "profile"), [], []
    for _ in range(times):
        browser.open(report, size=(1440, 900))
        browser.wait(READY)
        opens.append(browser.js("page.ready") / 1000)
        member = "page.data.axes[0].line[0]"
        selects.append(browser.js(f"const before = performance.now(); select({member}); performance.now() - before"))
    browser.close()
    return {"open": min(opens), "select": min(selects)}


def _seconds(do: Callable[[], object], clock: Callable[[], float]) -> float:
    before = clock()
    do()
    return clock() - before


def page(rows: Sequence[Row]) -> str:
    """The rows as a page of text."""
    head = ["trials", "read s", "write s", "of the processor", "MB", "open s", "choose ms"]
    numbers = [(one.load, one.write, one.write_cpu, one.megabytes, one.open) for one in rows]
    cells = [
        [f"{one.trials:,}", *(f"{value:.2f}" for value in values), f"{one.select:.0f}"]
        for one, values in zip(rows, numbers, strict=True)
    ]
    rows_of = "\n".join([*table_head(head, text=()), *map(table_row, cells)])
    return (
        "# Reports of many trials\n\n"
        f"{describe_machine()}; Python {platform.python_version()}, headless Chromium without a GPU; beside "
        f"other work (load average {os.getloadavg()[0]:.0f}), the best of several times. The target for 5,000 trials: "
        "at most 3 s to write, 5 MB, and 2 s until "
        f"the page answers.\n\n{rows_of}\n\n"
        "*Open* ends when the picture is drawn, the panel shows a model and the table its first hundred rows; of more "
        "than 1,500 trials those that are not on the front follow, and other figures when they come near. Rows:\n"
        "`python -m autoprune.analysis.benchmarks.report_speed`.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m autoprune.analysis.benchmarks.report_speed")
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000], metavar="N")
    parser.add_argument("--times", type=int, default=5, metavar="N")
    options = parser.parse_args(arguments)
    rows = []
    for trials in options.trials:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(trials, options.times, Path(folder)))
        print(rows[-1])
    write_measured(Path(__file__).with_suffix(".md"), page(rows))


if __name__ == "__main__":
    main()
