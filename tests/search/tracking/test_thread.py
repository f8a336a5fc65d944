"""A tracker in its thread: slow ones are not waited for, and what goes wrong is said once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import OUTCOMES

from autoprune.search.tracking.thread import TrackerThread
from autoprune.study.folder import StudyFolder
from autoprune.study.metric import ACCURACY
from autoprune.study.outcome import Outcome
from autoprune.study.tracker import TrackedStudy, Tracker
from autoprune.study.tradeoff import Tradeoff

STUDY = TrackedStudy(
    folder=StudyFolder(Path("mine")), tradeoff=Tradeoff(metric=ACCURACY, costs=("flops",)), known=(), origin=0.0
)


class Listener(Tracker):
    """Notes what it hears; every hook may be replaced."""

    def __init__(self, **hooks: Any) -> None:
        self.heard: list[int] = []
        self.hooks = hooks
        self.threads: set[str] = set()

    def open(self, study: TrackedStudy) -> Listener:
        self._call("open", study)
        return self

    def record(self, outcome: Outcome) -> None:
        self._call("record", outcome)
        self.heard.append(outcome.id)

    def close(self) -> None:
        self._call("close")

    def _call(self, hook: str, *args: object) -> None:
        self.threads.add(threading.current_thread().name)
        self.hooks.get(hook, lambda *_: None)(*args)


def fail(*_: object) -> None:
    raise ConnectionError("no route\nto host")


def test_it_hears_of_every_outcome_in_order_in_a_thread_of_its_own() -> None:
    listener = Listener()
    thread = TrackerThread("mine", listener, STUDY)
    for outcome in OUTCOMES:
        thread.tell([outcome])
    thread.end()

    assert (listener.heard, thread.error) == ([3, 5, 7, 9], None)
    assert listener.threads == {"tracker_mine"}


def test_one_that_hangs_is_waited_for_at_the_end_only_and_not_for_long() -> None:
    released = threading.Event()
    thread = TrackerThread("mine", Listener(record=lambda _outcome: released.wait(60)), STUDY)
    began = time.monotonic()
    thread.tell(OUTCOMES)
    thread.end(seconds=0.07)
    took = time.monotonic() - began
    released.set()

    assert thread.error == "tracker mine: did not get done in 0.07 s after the end, and is left alone"
    assert took < 30


@pytest.mark.parametrize(
    ("hook", "heard", "error"),
    [
        ("open", [], "tracker mine: hears no more: ConnectionError: no route"),
        ("close", [3, 5, 7, 9], "tracker mine: hears no more: ConnectionError: no route"),
        ("record", [], "tracker mine: trial-3 is missing, and others may be: ConnectionError: no route"),
    ],
)
def test_what_goes_wrong_first_is_said(hook: str, heard: list[int], error: str) -> None:
    listener = Listener(**{hook: fail})
    thread = TrackerThread("mine", listener, STUDY)
    thread.tell(OUTCOMES)
    thread.end()

    assert (listener.heard, thread.error) == (heard, error)


def test_after_a_failure_it_hears_of_the_next_ones() -> None:
    def fail_at_five(outcome: Outcome) -> None:
        if outcome.id == 5:
            fail()

    listener = Listener(record=fail_at_five)
    thread = TrackerThread("mine", listener, STUDY)
    thread.tell(OUTCOMES)
    thread.end()

    assert listener.heard == [3, 7, 9]
    assert thread.error is not None
    assert "trial-5 is missing" in thread.error
