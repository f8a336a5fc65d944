"""Dispatcher: hands out trial segments to an executor; a search is one, and so is the final retraining of its front."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from autoprune.errors import StudyError
from autoprune.search.running.budget_meter import BudgetMeter
from autoprune.search.running.limits import PATIENCE_SECONDS, RETRY_SECONDS
from autoprune.search.running.segments import TrialSegment
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.trial_folders import TrialFolders
from autoprune.study.config import StudyConfig
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.log import append_line
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.progress import StudyProgress, View

#: A view is shown the progress once in so many seconds at most.
UPDATE_SECONDS = 0.5

#: Why a trial has ended that no worker ended by itself before all of them were.
OUT_OF_TIME = "the search's time was over"


class Dispatcher(ABC):
    """Hands out trial segments until none is left, and takes in their outcomes.

    Args:
        config: of the study.
        folder: of the study; what paused trials go on from lies there.
        models: folder for the models of trials that completed.
        budget: what the trials may use.
        view: is shown the progress.

    Subclasses set `clock`, which shows the seconds since the study began.
    """

    clock: StudyClock

    def __init__(
        self, config: StudyConfig, folder: StudyFolder, *, models: Path, budget: BudgetMeter, view: View | None
    ) -> None:
        self.config, self.folder, self.budget, self.view = config, folder, budget, view
        self.models, self.states = TrialFolders(models), TrialFolders(folder.states, sealed=True)
        self.running: dict[int, float] = {}  # proposal id -> when its segment was handed out
        self.interrupted = False
        self.dashboard: str | None = None  # an executor that has one says where
        self.returned: deque[TrialSegment] = deque()  # of workers that were taken away; they count as running
        self.warnings: tuple[str, ...] = ()
        self.gave_up: str | None = None  # why the study folder cannot be written
        self.workers: str | None = None  # and how many workers there are, and how trials come to them
        self._latest: list[Outcome] = []
        self._shown = 0.0

    @abstractmethod
    def next(self) -> TrialSegment | None:
        """The segment to run next; None if there is none, or none yet: see `finished_handing_out`."""

    @abstractmethod
    def finished_handing_out(self) -> bool:
        """Whether nothing more will come."""

    @abstractmethod
    def remaining(self) -> int | None:
        """How many trials may still be handed out; None = as many as there is time for."""

    @abstractmethod
    def seconds_of_a_trial(self) -> float | None:
        """How long a trial takes on average, as far as earlier ones tell; None = not known yet."""

    @abstractmethod
    def end_segment(self, outcome: Outcome) -> None:
        """Take in the outcome of a segment; its model, or what its trial goes on from, is in the folder already."""

    @abstractmethod
    def end_lost_trial(self, proposal: Proposal, status: str, error: str) -> None:
        """Note the outcome of a trial whose worker cannot report any more."""

    @abstractmethod
    def progress(self, latest: Sequence[Outcome] = ()) -> StudyProgress:
        """How far the trials are; `latest` are the outcomes since the last look."""

    @abstractmethod
    def close(self) -> None:
        """Show the end, as nothing runs any more, and raise if it is not a good one."""

    def put_back(self, segment: TrialSegment) -> None:
        """Hand out a segment once more, before any other: its worker was taken away."""
        self.returned.append(segment)

    def note(self, log: Path, line: str) -> bool:
        """Append a line to a log of the study; see `write_patiently`."""
        return self.write_patiently(lambda: append_line(log, line))

    def write_patiently(self, write: Callable[[], None]) -> bool:
        """Write into the study folder; while that cannot be done, wait, and say so.

        Args:
            write: writes whole or not at all.

        Returns:
            Whether it was written; if not, the user has ended the search, or it ends itself after a long wait.
        """
        began, reason = time.monotonic(), None
        while True:
            try:
                self.folder.check_there()
                write()
            except OSError as error:
                if reason is None:
                    self._warn(f"the study folder cannot be written, and the search waits: {error.strerror or error}")
                reason = error.strerror or str(error)
            else:
                if reason is not None:
                    self._warn(f"the study folder could be written again after {time.monotonic() - began:.0f} s")
                return True
            if self.interrupted:
                return False
            if time.monotonic() - began > PATIENCE_SECONDS:
                self.gave_up, self.interrupted = reason, True
                return False
            time.sleep(RETRY_SECONDS)

    def check_folder(self, again: str) -> None:
        """Raise `StudyError` if the search has ended because the study folder could not be written.

        Args:
            again: the command that goes on with it.
        """
        if self.gave_up is not None:
            what = f"could not be written for {PATIENCE_SECONDS / 60:g} minutes: {self.gave_up}; go on with `{again}`"
            raise StudyError(what, where=str(self.folder.path))

    def _warn(self, text: str) -> None:
        self.warnings += (text,)
        self.refresh(force=True)

    def should_stop_running(self) -> bool:
        """Whether running trials should stop at their next rung."""
        stop_at = self.budget.limits.stop_at
        return stop_at is not None and self.clock.now() >= stop_at

    def must_end_now(self) -> bool:
        """Whether everything ends at once, whatever still runs."""
        cut_off_at = self.budget.limits.cut_off_at
        return self.interrupted or (cut_off_at is not None and self.clock.now() >= cut_off_at)

    def refresh(self, *, force: bool = False) -> None:
        """Show the progress, at most twice a second."""
        if self.view is None or (not force and time.monotonic() - self._shown < UPDATE_SECONDS):
            return
        self._shown = time.monotonic()
        latest, self._latest = tuple(self._latest), []
        self.view.update(self.progress(latest))


def last_time(study: Study) -> float:
    """The latest moment the logs speak of, in seconds since the study began."""
    proposed = [proposal.proposed for proposal in study.proposals]
    return max([0.0, *proposed, *(outcome.finished for outcome in (*study.outcomes, *study.paused))])
