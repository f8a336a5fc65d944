"""Dispatcher: hands out trial segments to an executor; a search is one, and so is the final retraining of its front."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from autoprune.search.running.budget_meter import BudgetMeter
from autoprune.search.running.segments import TrialSegment
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.trial_folders import TrialFolders
from autoprune.study.config import StudyConfig
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.progress import StudyProgress, View

#: A view is shown the progress once in so many seconds at most.
UPDATE_SECONDS = 0.5


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
        self.models, self.states = TrialFolders(models), TrialFolders(folder.states)
        self.running: dict[int, float] = {}  # proposal id -> when its segment was handed out
        self.interrupted = False
        self.dashboard: str | None = None  # an executor that has one says where
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
