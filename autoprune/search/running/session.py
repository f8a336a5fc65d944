"""Session: the driver's side of a running search: budget, logs, kept models, progress. Knows neither Ray nor torch."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from autoprune.errors import StudyError
from autoprune.recipe import Recipe
from autoprune.search.proposing.proposer import Proposer, cost_ratios
from autoprune.search.running.dispatcher import Dispatcher, last_time
from autoprune.search.running.halving import Cascade, pauses
from autoprune.search.running.limits import Limits, Spent, on_plateau
from autoprune.search.running.progress import FrontPoint, SearchInterrupted, StudyProgress, View
from autoprune.search.running.segments import TrialSegment
from autoprune.search.running.study_clock import StudyClock
from autoprune.search.running.time_estimates import Pace
from autoprune.study.config import StudyConfig
from autoprune.study.folder import Study, StudyFolder, load_study
from autoprune.study.log import append_line, repair_tail
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.pareto import candidates, front
from autoprune.study.space import Space

#: A search whose first outcomes all failed is given up: the reason is not in the recipes.
HOPELESS = 10


class Session(Dispatcher):
    """Hands out recipes and takes in outcomes; what it was told is on the disk before it answers.

    Only one process may hold a session on a folder.

    Args:
        config: of the study.
        space: the study's space, bound to its model.
        folder: with a `study.yaml`.
        limits: when this session ends.
        study: what the folder holds already.
        view: who watches.
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
    ) -> None:
        super().__init__(config, folder, models=folder.models, limits=limits, view=view)
        for log in (folder.proposals, folder.outcomes, folder.paused):
            repair_tail(log)
        study = study or load_study(folder.path)
        self.outcomes = list(study.outcomes)
        self.dense_accuracy = (study.config.get("dense") or {}).get("accuracy")
        self.proposer = Proposer(
            space,
            objectives=config.objectives,
            constraints=config.constraints,
            sampler=config.sampler,
            seed=config.seed,
            controls=config.controls,
            proposals=study.proposals,
            outcomes=study.outcomes,
        )
        self.cascade = Cascade(pauses(space) if config.cascade.keep < 1 else (), config.cascade.keep)
        self.pace, self.spent = Pace(), Spent(config.resources.gpus_per_trial)
        self.paused: dict[int, Outcome] = {}  # those that wait, as they were at their last rung
        self._past: dict[int, Outcome] = {}  # the same, and those that went on and have not ended
        self._proposals = {proposal.id: proposal for proposal in study.proposals}
        self._replay(study)
        self.clock = StudyClock(time.time() - last_time(study))
        self.started = self.clock.now()
        self._looked = 0, False  # how many outcomes there were when it was looked at, and whether they lie on a plateau
        self._lanes = 1  # legs that ran at the same time, at most
        for torn in (*folder.models.glob(".*"), *folder.states.glob(".*")):
            shutil.rmtree(torn)
        self._tidy_models()

    def next(self) -> TrialSegment | None:
        """See `Dispatcher.next`."""
        if self.finished_handing_out():
            return None
        leg = self._next()
        if leg is not None:
            number = leg.proposal.id
            self.running[number] = self.clock.now()
            self._lanes = max(self._lanes, len(self.running))
            images = _images_left(leg.proposal.recipe, self._past.get(number))
            self.spent.begins(number, images, self.pace.rest(images))
        return leg

    def finished_handing_out(self) -> bool:
        """See `Dispatcher.finished_handing_out`."""
        if self.interrupted or self.hopeless():
            return True
        if self.proposer.waiting:
            return False
        if self._late():
            return True
        may_pause = bool(self.cascade.rungs) and bool(self.running)
        return not (self._may_begin() or may_pause or self._promotable() is not None)

    def _next(self) -> TrialSegment | None:
        """Recipes of an earlier run first; then one that may go on, from the highest rung down; then a new one."""
        if self.proposer.waiting:
            return self._begin(log=False)
        number = self._promotable()
        if number is not None:
            return self._resume(number)
        return self._begin() if self._may_begin() else None

    def _begin(self, *, log: bool = True) -> TrialSegment:
        proposal = self.proposer.next(self.clock.now())
        if log:
            append_line(self.folder.proposals, proposal.to_json())
        self._proposals[proposal.id] = proposal
        return TrialSegment(proposal=proposal, until=1.0 if proposal.control else self.cascade.next_share())

    def _resume(self, number: int) -> TrialSegment:
        """A paused recipe goes on to the next rung or, when there is no time for new ones, to the end."""
        past = self.paused.pop(number)
        self.cascade.go_on(number)
        ending = self.limits.consumes and not self._may_begin()
        until = 1.0 if ending else self.cascade.next_share(past.rungs[-1].share)
        return TrialSegment(proposal=self._proposals[number], until=until, resumed=True)

    def _late(self) -> bool:
        """Whether the budget is used up."""
        limits, spent = self.limits, self.spent
        return (
            (limits.deadline is not None and self.clock.now() >= limits.deadline)
            or (limits.images is not None and spent.images(ahead=False) >= limits.images)
            or (limits.gpu_seconds is not None and spent.gpu_seconds(ahead=False) >= limits.gpu_seconds)
            or self._flat()
        )

    def _flat(self) -> bool:
        """Whether the front has stopped to grow; looked at once per outcome, as that takes a while."""
        if self._looked[0] != len(self.outcomes):
            self._looked = len(self.outcomes), on_plateau(self.outcomes, self.limits, self.config.objectives)
        return self._looked[1]

    def _may_begin(self) -> bool:
        """Whether a new recipe may start: the budget has one, and enough for its whole way."""
        enough = self.limits.trials is not None and self.proposer.handed_out >= self.limits.trials
        return not enough and not self._late() and self._affords(self.pace.whole(), self.pace.images())

    def _promotable(self) -> int | None:
        """The paused recipe that goes on: by the cascade's rule or, if a new one cannot end, the best that can."""
        number = self.cascade.promotable()
        if number is not None and self._fits(number):
            return number
        if not self.limits.consumes or self._may_begin():
            return None
        return next((left for left in self.cascade.leftovers() if self._fits(left)), None)

    def _fits(self, number: int) -> bool:
        """Whether a paused recipe can still be brought to its end."""
        left = _images_left(self.paused[number].recipe, self.paused[number])
        return self._affords(self.pace.rest(left), left)

    def _affords(self, seconds: float, images: int) -> bool:
        """Whether so much of the budget is left. Without a cascade recipes begin until its end; the grace is theirs."""
        if not self.cascade.rungs:
            return True
        limits, spent = self.limits, self.spent
        return (
            (limits.deadline is None or self.clock.now() + seconds <= limits.deadline)
            and (limits.images is None or spent.images() + images <= limits.images)
            and (limits.gpu_seconds is None or spent.gpu_seconds() + spent.gpus * seconds <= limits.gpu_seconds)
        )

    def hopeless(self) -> bool:
        """Whether so many recipes failed, and nothing else happened, that the search is given up."""
        return len(self.outcomes) >= HOPELESS and all(outcome.status == "failed" for outcome in self.outcomes)

    def remaining(self) -> int | None:
        """See `Dispatcher.remaining`."""
        if self.limits.trials is None:
            return None
        return max(self.limits.trials - self.proposer.handed_out, 0) + self.proposer.waiting

    def ended(self, outcome: Outcome) -> None:
        """See `Dispatcher.ended`."""
        if self.running.pop(outcome.id, None) is None:
            return
        past = self._past.get(outcome.id)
        outcome = replace(outcome, legs=(*(past.legs if past else ()), *outcome.legs))
        self.pace.note(outcome)
        self.spent.ends(outcome)
        if outcome.status == "paused":
            append_line(self.folder.paused, outcome.to_json())
            self._pause(outcome)
            self.refresh()
            return
        self._measured(outcome)
        self._end(outcome)

    def _pause(self, outcome: Outcome) -> None:
        self._measured(outcome)
        self.paused[outcome.id] = self._past[outcome.id] = outcome
        self.cascade.pause(outcome.id, outcome.rungs[-1].share)

    def _measured(self, outcome: Outcome) -> None:
        """Let the cascade know of the rungs that a recipe has passed."""
        shares = {rung.share for rung in self.cascade.rungs}
        costs = cost_ratios(outcome)
        cheap = [costs[name] for name in self.config.objectives if name != "accuracy"]
        if outcome.control or any(value is None for value in cheap):
            return
        for rung in outcome.rungs:
            if rung.share in shares and rung.comparable:
                self.cascade.measured(outcome.id, rung.share, (*cheap, -rung.accuracy))  # type: ignore[arg-type]
        if outcome.completed:
            self.cascade.completed(outcome.id)

    def _end(self, outcome: Outcome) -> None:
        append_line(self.folder.outcomes, outcome.to_json())
        self.outcomes.append(outcome)
        self._latest.append(outcome)
        self._past.pop(outcome.id, None)
        self.proposer.tell(outcome)
        shutil.rmtree(self.folder.states / str(outcome.id), ignore_errors=True)
        if outcome.completed:
            self._tidy_models()
        self.refresh()

    def lost(self, proposal: Proposal, status: str, error: str) -> None:
        """See `Dispatcher.lost`."""
        if proposal.id not in self.running:
            return
        past = self._past.get(proposal.id) or Outcome(
            id=proposal.id,
            recipe=proposal.recipe,
            status=status,
            started=self.running[proposal.id],
            seed=proposal.recipe.seed,
            control=proposal.control,
        )
        self.ended(replace(past, status=status, error=error, finished=self.clock.now(), legs=()))

    def progress(self, latest: Sequence[Outcome] = ()) -> StudyProgress:
        """The search at this moment."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        objectives = self.config.objectives
        points = tuple(FrontPoint.of(member, objectives) for member in front(self.outcomes, objectives))
        return StudyProgress(
            done=counts["completed"],
            running=len(self.running),
            paused=len(self.paused),
            stopped=counts["stopped"],
            failed=counts["failed"],
            seconds=self.clock.now(),
            eta=self._eta(),
            used=self._used(),
            dense_accuracy=self.dense_accuracy,
            front=points,
            latest=tuple(latest),
        )

    def close(self) -> None:
        """Settle what still waits, and show the end.

        Raises:
            SearchInterrupted: the user ended the session.
            StudyError: nothing that was pruned ran to its end.
        """
        if not self.interrupted:
            for outcome in list(self.paused.values()):
                self._end(replace(outcome, status="stopped", finished=self.clock.now()))
            self.paused.clear()
        self.refresh(force=True)
        if self.interrupted:
            count = len(self.outcomes)
            raise SearchInterrupted(
                f"stopped with {count} outcomes kept; go on with `autoprune resume {self.folder.path}`"
            )
        if not candidates(self.outcomes, self.config.objectives):
            raise StudyError(_why_nothing(self.outcomes), where=str(self.folder.path))

    def _replay(self, study: Study) -> None:
        """Take over what the logs say: what ended, and what waits. What waits without its files begins anew."""
        ended = {outcome.id for outcome in study.outcomes}
        for outcome in (*study.paused, *study.outcomes):
            self.pace.note(outcome)
            self.spent.ends(outcome)
        for outcome in study.outcomes:
            self._measured(outcome)
        for outcome in {past.id: past for past in study.paused if past.id not in ended}.values():
            if self.cascade.rungs and (self.folder.states / str(outcome.id)).is_dir():
                self._pause(outcome)
                self.proposer.waits(outcome.id)

    def _used(self) -> float | None:
        limits, spent = self.limits, self.spent
        counted = (
            (len(self.outcomes), limits.trials),
            (self.clock.now(), limits.deadline),
            (spent.images(ahead=False), limits.images),
            (spent.gpu_seconds(ahead=False), limits.gpu_seconds),
        )
        shares = [amount / limit for amount, limit in counted if limit]
        return min(1.0, max(shares)) if shares else None

    def _eta(self) -> float | None:
        """The shortest of what the limits say: the clock's, and what is left of the others at the pace so far."""
        limits, now, spent = self.limits, self.clock.now(), self.spent
        times = [] if limits.deadline is None else [limits.deadline - now]
        work = self.pace.expected([rung.share for rung in self.cascade.rungs], self.cascade.keep)
        if work is None and self.outcomes:
            work = now * self._lanes / len(self.outcomes)
        left = self.remaining()
        if left is not None and work is not None:
            times.append((left + len(self.running) / 2) * work / self._lanes)
        used = ((limits.images, spent.images(ahead=False)), (limits.gpu_seconds, spent.gpu_seconds(ahead=False)))
        times += [now * (limit / amount - 1) for limit, amount in used if limit is not None and amount]
        return max(0.0, min(times)) if times else None

    def _tidy_models(self) -> None:
        """Keep the models of the front and of the controls; the disk stays bounded."""
        wanted = {member.id for member in front(self.outcomes, self.config.objectives)}
        wanted |= {outcome.id for outcome in self.outcomes if outcome.control and outcome.completed}
        ended = {outcome.id for outcome in self.outcomes}
        for path in self.folder.models.glob("[0-9]*"):
            # A folder whose outcome is not noted yet was written a moment ago by a worker, or a crash came in between:
            # then the recipe runs again and writes it anew.
            if int(path.name) in ended - wanted:
                shutil.rmtree(path)


def _images_left(recipe: Recipe, past: Outcome | None) -> int:
    """Training images that a recipe needs to its end."""
    return recipe.training.images - (past.rungs[-1].images if past else 0)


def _why_nothing(outcomes: Sequence[Outcome]) -> str:
    broken = [outcome for outcome in outcomes if outcome.infeasible]
    if len(broken) > len(outcomes) / 2:
        return f"{len(broken)} of {len(outcomes)} trials broke a constraint; the last one: {broken[-1].error}"
    errors = Counter(outcome.error for outcome in outcomes if outcome.error)
    if not errors:
        return f"none of {len(outcomes)} trials pruned something and completed: the budget was too small"
    error, count = errors.most_common(1)[0]
    return f"none of {len(outcomes)} trials completed; {count} of them failed with: {error}"
