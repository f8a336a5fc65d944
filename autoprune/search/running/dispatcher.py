"""Dispatcher: what an executor needs of that which hands out trials, be it a search or the final retraining."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.search.running.limits import Limits
from autoprune.search.running.segments import TrialSegment
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.config import StudyConfig
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.outcome import Outcome, Proposal

if TYPE_CHECKING:
    from autoprune.search.running.progress import StudyProgress, View


UPDATE_SECONDS = 0.5


class Dispatcher(ABC):
    """Hands out trial segments until none is left, and takes in their outcomes.

    Args:
        config: of the study.
        folder: of the study; what paused trials go on from lies there.
        models: folder for the models of trials that completed, one folder each.
        limits: when to end.
        view: who watches.

    Subclasses set `clock`, which shows the seconds since the study began.
    """

    clock: StudyClock

    def __init__(
        self,
        config: StudyConfig,
        folder: StudyFolder,
        *,
        models: Path,
        limits: Limits,
        view: View | None,
    ) -> None:
        self.config, self.folder, self.limits, self.view = config, folder, limits, view
        self.models, self.states = models, folder.states
        self.running: dict[int, float] = {}  # proposal id -> when it was handed out
        self.interrupted = False
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
    def ended(self, outcome: Outcome) -> None:
        """Take in the outcome of a segment; its model, or what its trial goes on from, is in the folder already."""

    @abstractmethod
    def lost(self, proposal: Proposal, status: str, error: str) -> None:
        """Note the outcome of a trial whose worker cannot report any more."""

    @abstractmethod
    def progress(self, latest: Sequence[Outcome] = ()) -> StudyProgress:
        """How far the trials are; `latest` are the outcomes since the last look."""

    @abstractmethod
    def close(self) -> None:
        """Show the end, as nothing runs any more, and raise if it is not a good one."""

    def overrun(self) -> bool:
        """Whether running trials should stop at their next rung."""
        return self.limits.until is not None and self.clock.now() >= self.limits.until

    def over(self) -> bool:
        """Whether everything ends at once, whatever still runs."""
        return self.interrupted or (self.limits.at_last is not None and self.clock.now() >= self.limits.at_last)

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
