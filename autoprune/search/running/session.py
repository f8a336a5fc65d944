"""Session: the dispatcher of a search, with its logs, budget and kept models. Knows neither Ray nor torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from autoprune.errors import InputError, SearchInterrupted, StudyError
from autoprune.search.proposing.lineage_planner import Room
from autoprune.search.proposing.proposer import Proposer
from autoprune.search.proposing.redraws import Refuse, refuse_nothing
from autoprune.search.running.admission import Admission
from autoprune.search.running.budget_meter import BudgetMeter
from autoprune.search.running.dispatcher import OUT_OF_TIME, Dispatcher, last_time
from autoprune.search.running.early_stopping import SuccessiveHalving, pausing_shares
from autoprune.search.running.evaluator import failed_outcome
from autoprune.search.running.front_plateau import PlateauCheck
from autoprune.search.running.limits import Limits
from autoprune.search.running.paused_trials import PausedTrials
from autoprune.search.running.segments import TrialSegment
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.trial_records import TrialRecords
from autoprune.study.config import StudyConfig
from autoprune.study.folder import Study, StudyFolder, load_study
from autoprune.study.log import repair_tail
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.pareto import candidates
from autoprune.study.progress import FrontPoint, StudyProgress, View, count_ended
from autoprune.study.space import Space
from autoprune.study.tradeoff import Tradeoff

#: A search whose first outcomes all failed is given up: the reason is not in the recipes.
HOPELESS = 10

#: A training is made longer than the shortest only up to this share of the time after which a trial counts as hung, as
#: what it takes is known roughly.
SURE_SHARE = 0.5


class Session(Dispatcher):
    """Hands out trials and takes in outcomes, which are on the disk before it returns.

    Only one process may hold a session on a folder.

    Args:
        config: of the study.
        space: the study's space, bound to its model.
        folder: with a `study.yaml`.
        limits: when this session ends.
        study: what the folder holds already.
        view: is shown the progress.
        refuse: why a recipe cannot work, see `Proposer`.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: Space,
        folder: StudyFolder,
        *,
        limits: Limits,
        study: Study | None = None,
        view: View | None = None,
        refuse: Refuse = refuse_nothing,
    ) -> None:
        budget = BudgetMeter(limits, gpus=config.resources.gpus)
        super().__init__(config, folder, models=folder.models, budget=budget, view=view)
        for log in (folder.proposals, folder.outcomes, folder.paused):
            repair_tail(log)
        study = study or load_study(folder.path)
        self.dense_metric, self.tradeoff = study.dense_metric, config.tradeoff
        self.records = TrialRecords(study.proposals, study.outcomes, self.tradeoff)
        self.proposer = _open_proposer(config, space, study, refuse)
        self._nothing_left: InputError | None = None
        halving = SuccessiveHalving(pausing_shares(space) if config.cascade.keep < 1 else (), config.cascade.keep)
        self.paused = PausedTrials(halving, self.tradeoff)
        plateau = PlateauCheck(self.outcomes, self.tradeoff, self.dense_metric)
        self._admission = Admission(self.proposer, self.paused, budget, plateau)
        self._most_running = 0
        self._replay_logs(study)
        self.clock = StudyClock.at(last_time(study))
        self.models.remove_torn()
        self.states.remove_torn()
        self._remove_unwanted_models()

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all trials that have ended, in their order."""
        return self.records.outcomes

    def next(self) -> TrialSegment | None:
        """See `Dispatcher.next`."""
        if self.finished_handing_out():
            return None
        segment = self._choose_segment()
        if segment is not None:
            number, recipe = segment.proposal.id, segment.proposal.recipe
            self.running[number] = self.clock.now()
            self._most_running = max(self._most_running, len(self.running))
            self.budget.begin(number, self.paused.images_left(number, recipe))
        return segment

    def finished_handing_out(self) -> bool:
        """See `Dispatcher.finished_handing_out`."""
        if self.interrupted or self._is_hopeless() or self._nothing_left is not None:
            return True
        if self.returned or self.proposer.waiting:
            return False
        now = self.clock.now()
        if self._admission.is_budget_used_up(now):
            return True
        may_pause = bool(self.paused.halving.shares) and bool(self.running)
        return not (self._admission.may_begin(now) or may_pause or self._admission.find_promotable(now) is not None)

    def remaining(self) -> int | None:
        """See `Dispatcher.remaining`."""
        trials = self.budget.limits.trials
        if trials is None:
            return None
        return max(trials - self.proposer.handed_out, 0) + self.proposer.waiting

    def seconds_of_a_trial(self) -> float | None:
        """See `Dispatcher.seconds_of_a_trial`."""
        halving = self.paused.halving
        return self.budget.estimates.average_trial(halving.shares, halving.keep)

    def end_segment(self, outcome: Outcome) -> None:
        """See `Dispatcher.end_segment`."""
        if self.running.pop(outcome.id, None) is None:
            return
        before = self.paused.at_last_pause(outcome.id)
        outcome = replace(
            outcome,
            legs=(*(before.legs if before else ()), *outcome.legs),
            ancestor_images=self.records.images_of_ancestors(outcome.recipe),
        )
        self.budget.end(outcome)
        if outcome.status == "paused":
            if not self.note(self.folder.paused, outcome.to_json(self.tradeoff.metric)):
                return
            self.paused.pause(outcome)
            self.refresh()
            return
        self.paused.record(outcome)
        self._end_trial(outcome)

    def end_lost_trial(self, proposal: Proposal, status: str, error: str) -> None:
        """See `Dispatcher.end_lost_trial`."""
        if proposal.id not in self.running:
            return
        now = self.clock.now()
        outcome = self.paused.at_last_pause(proposal.id) or failed_outcome(
            proposal, error, started=self.running[proposal.id], finished=now
        )
        self.end_segment(replace(outcome, status=status, error=error, finished=now, legs=()))

    def progress(self, latest: Sequence[Outcome] = ()) -> StudyProgress:
        """The search at this moment."""
        now = self.clock.now()
        points = [FrontPoint.of(member, self.tradeoff) for member in self.records.front]
        return StudyProgress(
            **count_ended(self.outcomes),
            running=len(self.running),
            paused=len(self.paused.waiting),
            seconds=now,
            eta=self.budget.seconds_left(self._seconds_of_trials_left(now), now),
            used=self.budget.used_share(len(self.outcomes), now),
            metric=self.tradeoff.metric,
            dense_metric=self.dense_metric,
            front=tuple(points),
            latest=tuple(latest),
            dashboard=self.dashboard,
            warnings=self.warnings,
            workers=self.workers,
            stopping=self.interrupted,
            goal=self._admission.plateau.goal(self.budget.limits),
        )

    def close(self) -> None:
        """Settle what still waits, and show the end.

        Raises:
            SearchInterrupted: the user ended the session.
            InputError: no recipe was left that can work.
            StudyError: nothing that was pruned ran to its end.
        """
        if not self.interrupted:
            for outcome in list(self.paused.waiting.values()):
                self._end_trial(replace(outcome, status="stopped", finished=self.clock.now()))
            self.paused.waiting.clear()
        self.refresh(force=True)
        self.check_folder(f"autoprune resume {self.folder.path}")
        if self.interrupted:
            count = len(self.outcomes)
            raise SearchInterrupted(
                f"stopped with {count} outcomes kept; go on with `autoprune resume {self.folder.path}`"
            )
        if self._nothing_left is not None:
            raise self._nothing_left
        if not candidates(self.outcomes, self.tradeoff):
            raise StudyError(_explain_empty_front(self.outcomes, self.tradeoff), where=str(self.folder.path))

    def _choose_segment(self) -> TrialSegment | None:
        """What was put back; trials of an earlier run; one that may go on, from the highest rung down; or a new one."""
        if self.returned:
            return self.returned.popleft()
        if self.proposer.waiting:
            return self._begin_trial()
        number = self._admission.find_promotable(self.clock.now())
        if number is not None:
            return self._resume_trial(number)
        return self._begin_trial() if self._admission.may_begin(self.clock.now()) else None

    def _begin_trial(self) -> TrialSegment | None:
        """The next trial; a new one is logged, one of an earlier run is in the log already. None: none can work."""
        try:
            now = self.clock.now()
            proposal = self.proposer.next(now, self._room(now))
        except InputError as nothing:
            self._nothing_left = nothing
            return None
        if proposal.id not in self.records and not self.note(self.folder.proposals, proposal.to_json()):
            return None
        self.records.begin(proposal)
        return TrialSegment(proposal=proposal, until=1.0 if proposal.control else self.paused.halving.next_pause())

    def _room(self, now: float) -> Room:
        """What is left for a trial that begins now, before the budget is used up or the trial counts as hung."""
        room = self.budget.room(now)
        unhung = SURE_SHARE * 60 * self.config.resources.trial_timeout_minutes
        return replace(room, seconds=min(room.seconds, unhung))

    def _resume_trial(self, number: int) -> TrialSegment:
        """A paused trial goes on to the next rung or to its end, with the recipe that it came so far with."""
        outcome = self.paused.resume(number)
        proposal = replace(self.records.proposal(number), recipe=outcome.recipe)
        until = self._admission.next_pause(outcome.rungs[-1].share, self.clock.now())
        return TrialSegment(proposal=proposal, until=until, resumed=True)

    def _is_hopeless(self) -> bool:
        """Whether so many trials failed, and nothing else happened, that the search is given up."""
        return len(self.outcomes) >= HOPELESS and all(outcome.status == "failed" for outcome in self.outcomes)

    def _end_trial(self, outcome: Outcome) -> None:
        if not self.note(self.folder.outcomes, outcome.to_json(self.tradeoff.metric)):
            return
        self.records.end(outcome)
        self._latest.append(outcome)
        self.paused.forget(outcome.id)
        self.proposer.tell(outcome)
        self.states.discard(outcome.id)
        if outcome.completed:
            self._remove_unwanted_models()
        self.refresh()

    def _remove_unwanted_models(self) -> None:
        """Keep the models of the front and of the controls, and those that trials go on from; the disk stays bounded.

        A model whose outcome is not noted yet was written a moment ago by a worker, or a crash came in between: then
        the trial runs again and writes it anew.
        """
        wanted = self.records.needed_models() | self.proposer.parents()
        self.models.remove({number for number in self.models.numbers() - wanted if self.records.has_ended(number)})

    def _replay_logs(self, study: Study) -> None:
        """Take over trials that have ended, and those that wait; what waits without its files begins anew."""
        ended = {outcome.id for outcome in study.outcomes}
        for outcome in (*study.paused, *study.outcomes):
            self.budget.end(outcome)
        for outcome in study.outcomes:
            self.paused.record(outcome)
        for outcome in {past.id: past for past in study.paused if past.id not in ended}.values():
            if self.paused.halving.shares and outcome.id in self.states:
                self.paused.pause(outcome)
                self.proposer.drop_waiting(outcome.id)

    def _seconds_of_trials_left(self, now: float) -> float | None:
        """Seconds until as many trials have ended as the limits allow; running trials are half done on average."""
        left, at_once = self.remaining(), max(self._most_running, 1)
        per_trial = self.seconds_of_a_trial()
        if per_trial is None and self.outcomes:
            per_trial = now * at_once / len(self.outcomes)
        if left is None or per_trial is None:
            return None
        return (left + len(self.running) / 2) * per_trial / at_once


def _open_proposer(config: StudyConfig, space: Space, study: Study, refuse: Refuse) -> Proposer:
    return Proposer(
        space,
        objectives=study.objectives,
        constraints=config.constraints,
        sampler=config.sampler,
        seed=config.seed,
        controls=config.controls,
        metric=config.tradeoff.metric,
        dense_metric=study.dense_metric,
        refuse=refuse,
        proposals=study.proposals,
        outcomes=study.outcomes,
    )


def _explain_empty_front(outcomes: Sequence[Outcome], tradeoff: Tradeoff) -> str:
    if tradeoff.limit is not None and (missing := candidates(outcomes, replace(tradeoff, limit=None))):
        best = max(missing, key=lambda outcome: tradeoff.height(outcome) or 0.0)
        found = f"the best: trial {best.id} with {best.metric:.4g}"
        return f"none of {len(missing)} models has {tradeoff.metric.wish(tradeoff.limit)} (constraints.metric); {found}"
    broken = [outcome for outcome in outcomes if outcome.infeasible]
    if len(broken) > len(outcomes) / 2:
        return f"{len(broken)} of {len(outcomes)} trials broke a constraint; the last one: {broken[-1].error}"
    errors = Counter(outcome.error for outcome in outcomes if outcome.error)
    if not errors:
        return f"none of {len(outcomes)} trials pruned something and completed: the budget was too small"
    error, count = errors.most_common(1)[0]
    if error == OUT_OF_TIME:
        more = "`resume` with more minutes, or fewer `space.training.images`"
        return f"none of {len(outcomes)} trials completed before {OUT_OF_TIME}: {more}"
    return f"none of {len(outcomes)} trials completed; {count} of them ended with: {error}"
