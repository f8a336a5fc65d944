"""Finals: the front of a study trained again at full length, with several seeds, and read once on the test split.

Nothing is chosen here any more. Which recipes run, `finalists.to_train` says from the search alone; the test split is
read when a training has ended, and of several seeds the model that is kept is the best on the validation split.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from autoprune.errors import StudyError
from autoprune.search.running.dispatcher import Dispatcher, last_time
from autoprune.search.running.evaluator import failed_outcome
from autoprune.search.running.limits import Limits
from autoprune.search.running.progress import FrontPoint, SearchInterrupted, StudyProgress, View
from autoprune.search.running.segments import TrialSegment
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.time_estimates import Pace
from autoprune.study.config import StudyConfig
from autoprune.study.finalists import Entry, finalists
from autoprune.study.folder import Study
from autoprune.study.log import append_line, repair_tail
from autoprune.study.outcome import Outcome, Proposal


def with_time(config: StudyConfig, study: Study, entries: Sequence[Entry]) -> StudyConfig:
    """The configuration for these trainings: a trial may take as many times longer as it has more images."""
    longest = max(proposal.recipe.training.images for proposal in study.proposals)
    times = max((entry.proposal.recipe.training.images / max(longest, 1) for entry in entries), default=1.0)
    minutes = config.resources.trial_timeout_minutes * max(times, 1.0)
    return replace(config, resources=replace(config.resources, trial_timeout_minutes=minutes))


def clock_of(study: Study) -> StudyClock:
    """The study's clock, as it goes on after all that the folder speaks of."""
    ended = max((run.finished for run in study.finalists), default=0.0)
    return StudyClock(time.time() - max(ended, last_time(study)))


class Finals(Dispatcher):
    """Hands out what `finalists.to_train` found, and keeps one model per member.

    Args:
        config: of the study, see `with_time`.
        study: with its front.
        entries: what to run.
        clock: of the study.
        limits: with a deadline, nothing begins that would not end before it, at the pace of the search.
        view: who watches.
    """

    def __init__(
        self,
        config: StudyConfig,
        study: Study,
        entries: Sequence[Entry],
        *,
        clock: StudyClock,
        limits: Limits | None = None,
        view: View | None = None,
    ) -> None:
        folder = study.folder
        super().__init__(config, folder, models=folder.final_models, limits=limits or Limits(), view=view)
        repair_tail(folder.finalists)
        self.clock, self.began = clock, clock.now()
        self.outcomes = list(study.finalists)
        self.planned, self._ended = len(entries), 0
        self._queue = deque(entries)
        self._member = {entry.proposal.id: entry.member for entry in entries}
        self._pace = Pace()
        for outcome in study.outcomes:
            self._pace.note(outcome)
        for torn in self.models.glob(".*"):
            shutil.rmtree(torn)
        self._tidy_models()

    def next(self) -> TrialSegment | None:
        """See `Dispatcher.next`."""
        if self.finished_handing_out():
            return None
        proposal = replace(self._queue.popleft().proposal, proposed=self.clock.now())
        self.running[proposal.id] = proposal.proposed
        return TrialSegment(proposal=proposal)

    def finished_handing_out(self) -> bool:
        """See `Dispatcher.finished_handing_out`."""
        return self.interrupted or not self._queue or not self._in_time()

    def remaining(self) -> int | None:
        """See `Dispatcher.remaining`."""
        return len(self._queue)

    def ended(self, outcome: Outcome) -> None:
        """See `Dispatcher.ended`."""
        if self.running.pop(outcome.id, None) is None:
            return
        outcome = replace(outcome, member=self._member[outcome.id])
        append_line(self.folder.finalists, outcome.to_json())
        self.outcomes.append(outcome)
        self._latest.append(outcome)
        self._ended += 1
        self._tidy_models()
        self.refresh()

    def lost(self, proposal: Proposal, status: str, error: str) -> None:
        """See `Dispatcher.lost`."""
        if proposal.id in self.running:
            started = self.running[proposal.id]
            outcome = failed_outcome(proposal, error, started=started, finished=self.clock.now())
            self.ended(replace(outcome, status=status))

    def progress(self, latest: Sequence[Outcome] = ()) -> StudyProgress:
        """The finals at this moment; test accuracies are not among what is shown on the way."""
        now = self.outcomes[len(self.outcomes) - self._ended :]
        counts, found = Counter(outcome.status for outcome in now), finalists(self.outcomes)
        points = [
            _point(one.best, one.member, one.validation.mean, self.config.objectives) for one in found if not one.dense
        ]
        return StudyProgress(
            done=counts["completed"],
            running=len(self.running),
            paused=0,
            stopped=counts["stopped"],
            failed=counts["failed"],
            seconds=self.clock.now(),
            eta=self._eta(),
            used=self._ended / self.planned if self.planned else None,
            dense_accuracy=next((one.validation.mean for one in found if one.dense), None),
            front=tuple(points),
            latest=tuple(latest),
        )

    def close(self) -> None:
        """Show the end.

        Raises:
            SearchInterrupted: the user ended it.
            StudyError: nothing of what ran has completed.
        """
        self.refresh(force=True)
        again = f"autoprune finish {self.folder.path}"
        now = self.outcomes[len(self.outcomes) - self._ended :]
        if self.interrupted:
            kept = sum(outcome.completed for outcome in now)
            raise SearchInterrupted(f"stopped with {kept} of {self.planned} finalists kept; go on with `{again}`")
        if now and not any(outcome.completed for outcome in now):
            error, count = Counter(outcome.error for outcome in now).most_common(1)[0]
            raise StudyError(f"none of {len(now)} finalists completed; {count} of them failed with: {error}")

    def _in_time(self) -> bool:
        if self.limits.deadline is None:
            return True
        images = self._queue[0].proposal.recipe.training.images
        return self.clock.now() + self._pace.begin() + self._pace.rest(images) <= self.limits.deadline

    def _eta(self) -> float | None:
        left = len(self._queue) + len(self.running) / 2
        return left * (self.clock.now() - self.began) / self._ended if self._ended else None

    def _tidy_models(self) -> None:
        """Keep one model per member; what runs now may have left one whose outcome is not noted yet."""
        wanted = {one.best.id for one in finalists(self.outcomes)}
        for path in self.models.glob("[0-9]*"):
            if int(path.name) not in wanted | set(self.running):
                shutil.rmtree(path)


def _point(run: Outcome, member: int, accuracy: float, objectives: Sequence[str]) -> FrontPoint:
    return replace(FrontPoint.of(run, objectives), id=member, accuracy=accuracy)
