"""A tracker in a thread of its own: whatever it does, the search goes on at its pace."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from queue import SimpleQueue

from autoprune.errors import first_line
from autoprune.study.outcome import Outcome
from autoprune.study.tracker import TrackedStudy, Tracker, run_name

#: At the end of a search a tracker has so many seconds to get done with what it was told.
END_SECONDS = 30.0


class TrackerThread:
    """Tells a tracker of outcomes, one after the other, and keeps the first thing that goes wrong.

    Args:
        name: of the tracker, for what is said of it.
        tracker: opened in the thread.
        study: whose outcomes it hears of.
    """

    def __init__(self, name: str, tracker: Tracker, study: TrackedStudy) -> None:
        self.name, self._tracker, self._study = name, tracker, study
        self.error: str | None = None
        self._untold: SimpleQueue[Outcome | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"tracker_{name}", daemon=True)
        self._thread.start()

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Tell of outcomes, without waiting until the tracker has heard."""
        for outcome in outcomes:
            self._untold.put(outcome)

    def end(self, seconds: float = END_SECONDS) -> None:
        """Wait until the tracker has heard of everything, but no longer than so many seconds."""
        self._untold.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._note(f"did not get done in {seconds:g} s after the end, and is left alone")

    def _run(self) -> None:
        try:
            run = self._tracker.open(self._study)
            while (outcome := self._untold.get()) is not None:
                try:
                    run.record(outcome)
                except Exception as error:  # noqa: BLE001 - foreign code; the next outcome may be heard of again
                    self._note(f"{run_name(outcome)} is missing, and others may be: {_said(error)}")
            run.close()
        except Exception as error:  # noqa: BLE001 - the same, and nothing more can be told
            self._note(f"hears no more: {_said(error)}")

    def _note(self, what: str) -> None:
        self.error = self.error or f"tracker {self.name}: {what}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error, 200)}"
