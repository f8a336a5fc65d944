"""What all tests share: a clean place for data and no surprises from the machine they run on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch or Ray is imported anywhere: Ray reports nothing home, and tiny networks are not slowed by threads.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

#: What a machine may lack: marker of the tests that then are skipped, what they test, what brings it.
LACKING = {"browser": ("the report in a browser", "apt-get install -y chromium")}

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(autouse=True, scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """$AUTOPRUNE_DATA: an empty folder, so that no test leans on the data of the machine it runs on."""
    folder = tmp_path_factory.mktemp("data")
    os.environ["AUTOPRUNE_DATA"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def _same_data_folder(data_folder: Path) -> Iterator[None]:
    """No test leaves another data folder to the tests after it: one did, and others failed, in some orders only."""
    before = os.environ["AUTOPRUNE_DATA"]
    yield
    assert os.environ["AUTOPRUNE_DATA"] == before


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what was not tested for lack of a program, and the command that brings it."""
    for line in not_tested(terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(line, yellow=True)


def not_tested(skipped: Iterable[pytest.TestReport]) -> Iterator[str]:
    """One line for each program that is missing, of what was skipped."""
    reports = list(skipped)
    for marker, (what, command) in LACKING.items():
        if count := sum(marker in report.keywords for report in reports):
            yield f"not tested: {what} ({count} tests skipped); this brings it: {command}"
