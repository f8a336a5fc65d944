"""Final retraining: the front of a study trained again, longer and with several seeds, and read on the test split once.

Nothing is chosen here any more. `finalists.to_train` says from the search alone which recipes run; the test split is
read when a training has ended, and of several seeds the model that is kept is the best on the validation split.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from autoprune.errors import SearchInterrupted, StudyError
from autoprune.search.running.budget_meter import BudgetMeter
from autoprune.search.running.dispatcher import Dispatcher, last_time
from autoprune.search.running.evaluator import failed_outcome
from autoprune.search.running.limits import Limits
from autoprune.search.running.segments import TrialSegment
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.trial_folders import TrialFolders
from autoprune.study.config import StudyConfig
from autoprune.study.finalists import MissingTraining, by_member
from autoprune.study.folder import Study
from autoprune.study.log import repair_tail
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.progress import FrontPoint, StudyProgress, View, count_ended


def with_longer_timeout(config: StudyConfig, study: Study, entries: Sequence[MissingTraining]) -> StudyConfig:
    """The configuration for these trainings: a trial may take as many times longer as it has more images."""
    longest = max(proposal.recipe.training.images for proposal in study.proposals)
    times = max((entry.images / max(longest, 1) for entry in entries), default=1.0)
    minutes = config.resources.trial_timeout_minutes * max(times, 1.0)
    return replace(config, resources=replace(config.resources, trial_timeout_minutes=minutes))


def continued_clock(study: Study) -> StudyClock:
    """The study's clock, as it goes on after all that the folder speaks of."""
    ended = max((run.finished for run in study.finalists), default=0.0)
    return StudyClock.at(max(ended, last_time(study)))


class FinalRetraining(Dispatcher):
    """Hands out what `finalists.to_train` found, and keeps one model per member.

    Args:
        config: of the study, see `with_longer_timeout`.
        study: with its front.
        entries: what to run.
        clock: of the study.
        limits: with a deadline, no training begins that would not end before it, if it is as fast as the search was.
        view: is shown the progress.
    """

    def __init__(
        self,
        config: StudyConfig,
        study: Study,
        entries: Sequence[MissingTraining],
        *,
        clock: StudyClock,
        limits: Limits | None = None,
        view: View | None = None,
    ) -> None:
        folder, budget = study.folder, BudgetMeter(limits or Limits(), gpus=config.resources.gpus)
        super().__init__(config, folder, models=folder.final_models, budget=budget, view=view)
        self.states = TrialFolders(folder.final_states, sealed=True)
        repair_tail(folder.finalists)
        self.clock, self.began = clock, clock.now()
        self.outcomes, self.tradeoff = list(study.finalists), config.tradeoff
        self.planned, self._earlier = len(entries), len(study.finalists)
        self._queue = deque(entries)
        self._member = {entry.proposal.id: entry.member for entry in entries}
        for outcome in study.outcomes:
            self.budget.estimates.learn(outcome)
        self.models.remove_torn()
        self.states.remove_torn()
        self._remove_unwanted_models()

    @property
    def ended(self) -> list[Outcome]:
        """The outcomes of this retraining, without those of earlier ones."""
        return self.outcomes[self._earlier :]

    def next(self) -> TrialSegment | None:
        """See `Dispatcher.next`."""
        if self.finished_handing_out():
            return None
        if self.returned:
            return self.returned.popleft()
        proposal = replace(self._queue.popleft().proposal, proposed=self.clock.now())
        self.running[proposal.id] = proposal.proposed
        return TrialSegment(proposal=proposal)

    def finished_handing_out(self) -> bool:
        """See `Dispatcher.finished_handing_out`."""
        return self.interrupted or not (self.returned or (self._queue and self._affords_next()))

    def remaining(self) -> int | None:
        """See `Dispatcher.remaining`."""
        return len(self._queue)

    def seconds_of_a_trial(self) -> float | None:
        """See `Dispatcher.seconds_of_a_trial`."""
        return self.budget.estimates.whole_trial() or None

    def end_segment(self, outcome: Outcome) -> None:
        """See `Dispatcher.end_segment`."""
        if self.running.pop(outcome.id, None) is None:
            return
        outcome = replace(outcome, member=self._member[outcome.id])
        if not self.note(self.folder.finalists, outcome.to_json(self.tradeoff.metric)):
            return
        self.states.discard(outcome.id)
        self.outcomes.append(outcome)
        self._latest.append(outcome)
        self._remove_unwanted_models()
        self.refresh()

    def end_lost_trial(self, proposal: Proposal, status: str, error: str) -> None:
        """See `Dispatcher.end_lost_trial`."""
        if proposal.id in self.running:
            started = self.running[proposal.id]
            outcome = failed_outcome(proposal, error, started=started, finished=self.clock.now())
            self.end_segment(replace(outcome, status=status))

    def progress(self, latest: Sequence[Outcome] = ()) -> StudyProgress:
        """The retraining at this moment; the metric on the test split is not shown on the way."""
        found = by_member(self.outcomes, self.tradeoff.metric)
        points = [
            replace(FrontPoint.of(one.best, self.tradeoff), id=one.member, metric=one.validation.mean)
            for one in found
            if not one.dense
        ]
        return StudyProgress(
            **count_ended(self.ended),
            running=len(self.running),
            paused=0,
            seconds=self.clock.now(),
            eta=self._seconds_left(),
            used=len(self.ended) / self.planned if self.planned else None,
            metric=self.tradeoff.metric,
            dense_metric=next((one.validation.mean for one in found if one.dense), None),
            front=tuple(points),
            latest=tuple(latest),
            dashboard=self.dashboard,
            warnings=self.warnings,
            workers=self.workers,
            stopping=self.interrupted,
        )

    def close(self) -> None:
        """Show the end.

        Raises:
            SearchInterrupted: the user ended it.
            StudyError: no training that ran has completed.
        """
        self.refresh(force=True)
        again, ended = f"autoprune finish {self.folder.path}", self.ended
        self.check_folder(again)
        if self.interrupted:
            kept = sum(outcome.completed for outcome in ended)
            raise SearchInterrupted(f"stopped with {kept} of {self.planned} finalists kept; go on with `{again}`")
        if ended and not any(outcome.completed for outcome in ended):
            error, count = Counter(outcome.error for outcome in ended).most_common(1)[0]
            raise StudyError(f"none of {len(ended)} finalists completed; {count} of them ended with: {error}")

    def _affords_next(self) -> bool:
        """Whether the next training would end before the deadline."""
        images, estimates = self._queue[0].images, self.budget.estimates
        seconds = estimates.until_training() + estimates.training(images)
        return self.budget.affords(seconds, images, self.clock.now())

    def _seconds_left(self) -> float | None:
        left, ended = len(self._queue) + len(self.running) / 2, len(self.ended)
        return left * (self.clock.now() - self.began) / ended if ended else None

    def _remove_unwanted_models(self) -> None:
        """Keep one model per member; what runs now may have left one whose outcome is not noted yet."""
        wanted = {one.best.id for one in by_member(self.outcomes, self.tradeoff.metric)}
        self.models.remove(self.models.numbers() - wanted - set(self.running))
