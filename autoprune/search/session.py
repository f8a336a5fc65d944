"""Session: the driver's side of a running search: budget, logs, kept models, progress. Knows neither Ray nor torch."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from autoprune.errors import AutopruneError, StudyError
from autoprune.pareto import candidates, front
from autoprune.results import Outcome, Proposal, Study, StudyFolder, append_line, load_study, repair_tail
from autoprune.search.evaluate import StudyClock
from autoprune.search.searcher import Proposer
from autoprune.space import Budget, Space, StudyConfig

#: Running trials may overrun the search by this share of its minutes, but at least by these seconds.
GRACE_SHARE, GRACE_SECONDS = 0.1, 30.0
#: A search whose first outcomes all failed is given up: the reason is not in the recipes.
HOPELESS = 10
UPDATE_SECONDS = 0.5
CUT_OFF_SECONDS = 10.0


class SearchInterrupted(AutopruneError):  # noqa: N818 - what happened is no error of anyone's
    """The user ended the search; everything that had finished is kept."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a session ends.

    Fields:
        trials: recipes of the whole study; None = no limit.
        deadline: no recipe is handed out for the first time from then on, in seconds since the study began.
        grace: seconds after the deadline in which running trials may finish; then they are stopped.
    """

    trials: int | None = None
    deadline: float | None = None
    grace: float = GRACE_SECONDS

    @classmethod
    def of(cls, budget: Budget, *, start: float = 0.0) -> Limits:
        """The budget as limits of a session that begins at `start`."""
        seconds = None if budget.minutes is None else 60 * budget.minutes
        deadline = None if seconds is None else start + seconds
        return cls(trials=budget.trials, deadline=deadline, grace=max(GRACE_SECONDS, GRACE_SHARE * (seconds or 0)))

    @property
    def until(self) -> float | None:
        """When running trials are asked to stop, in seconds since the study began."""
        return None if self.deadline is None else self.deadline + self.grace

    @property
    def at_last(self) -> float | None:
        """When trials that did not listen are cut off."""
        return None if self.until is None else self.until + CUT_OFF_SECONDS


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One member of the front so far."""

    id: int
    method: str
    flops_ratio: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """A search at one moment, for whoever watches it.

    Fields:
        done: outcomes with status completed.
        seconds: since the study began.
        eta: seconds until the budget is used up, as far as one can tell; None = not yet.
        trials, minutes: the budget.
        front: by rising FLOPs.
        latest: outcomes since the last update, oldest first.
    """

    done: int
    running: int
    stopped: int
    failed: int
    seconds: float
    eta: float | None
    trials: int | None
    minutes: float | None
    dense_accuracy: float | None
    front: tuple[FrontPoint, ...]
    latest: tuple[Outcome, ...]


class View(Protocol):
    """Shows progress; `update` is called at most twice a second, and once at the end."""

    def update(self, progress: StudyProgress) -> None:
        """Show it."""

    def close(self) -> None:
        """The search is over, or has failed."""


class Session:
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
        self.config, self.folder, self.limits, self.view = config, folder, limits, view
        for log in (folder.proposals, folder.outcomes):
            repair_tail(log)
        study = study or load_study(folder.path)
        self.outcomes = list(study.outcomes)
        self.dense_accuracy = (study.config.get("dense") or {}).get("accuracy")
        self.proposer = Proposer(
            space,
            objectives=config.objectives,
            sampler=config.sampler,
            seed=config.seed,
            proposals=study.proposals,
            outcomes=study.outcomes,
        )
        self.clock = StudyClock(time.time() - last_time(study))
        self.started = self.clock.now()
        self.running: dict[int, float] = {}  # proposal id -> when it was handed out by this session
        self.interrupted = False
        self._latest: list[Outcome] = []
        self._shown = 0.0
        self._before = len(self.outcomes)
        for torn in folder.models.glob(".*"):
            shutil.rmtree(torn)
        self._tidy_models()

    def next(self) -> Proposal | None:
        """The next recipe, or None when the session hands out no more."""
        if self.finished_handing_out():
            return None
        again = self.proposer.waiting > 0
        proposal = self.proposer.next(self.clock.now())
        if not again:
            append_line(self.folder.proposals, proposal.to_json())
        self.running[proposal.id] = self.clock.now()
        return proposal

    def finished_handing_out(self) -> bool:
        """Whether no more recipes will come."""
        if self.interrupted or self.hopeless():
            return True
        if self.proposer.waiting:
            return False
        limits = self.limits
        enough = limits.trials is not None and self.proposer.handed_out >= limits.trials
        return enough or (limits.deadline is not None and self.clock.now() >= limits.deadline)

    def overrun(self) -> bool:
        """Whether running trials should stop at their next rung."""
        return self.limits.until is not None and self.clock.now() >= self.limits.until

    def over(self) -> bool:
        """Whether the session ends at once, whatever still runs."""
        return self.interrupted or (self.limits.at_last is not None and self.clock.now() >= self.limits.at_last)

    def hopeless(self) -> bool:
        """Whether so many recipes failed, and nothing else happened, that the search is given up."""
        return len(self.outcomes) >= HOPELESS and all(outcome.status == "failed" for outcome in self.outcomes)

    def remaining(self) -> int | None:
        """Recipes that may still be handed out; None = as many as there is time for."""
        if self.limits.trials is None:
            return None
        return max(self.limits.trials - self.proposer.handed_out, 0) + self.proposer.waiting

    def ended(self, outcome: Outcome) -> None:
        """Note an outcome; its model, if any, is in the folder already."""
        if self.running.pop(outcome.id, None) is None:
            return
        append_line(self.folder.outcomes, outcome.to_json())
        self.outcomes.append(outcome)
        self._latest.append(outcome)
        self.proposer.tell(outcome)
        if outcome.completed:
            self._tidy_models()
        self.refresh()

    def lost(self, proposal: Proposal, status: str, error: str) -> None:
        """Note the outcome of a recipe whose worker cannot report any more."""
        if proposal.id not in self.running:
            return
        self.ended(
            Outcome(
                id=proposal.id,
                recipe=proposal.recipe,
                status=status,
                error=error,
                started=self.running[proposal.id],
                finished=self.clock.now(),
                seed=proposal.recipe.seed,
                control=proposal.control,
            )
        )

    def refresh(self, *, force: bool = False) -> None:
        """Show the progress, at most twice a second."""
        if self.view is None or (not force and time.monotonic() - self._shown < UPDATE_SECONDS):
            return
        self._shown = time.monotonic()
        latest, self._latest = tuple(self._latest), []
        self.view.update(self.progress(latest))

    def progress(self, latest: Sequence[Outcome] = ()) -> StudyProgress:
        """The search at this moment."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        points = tuple(
            FrontPoint(
                id=member.id,
                method=member.recipe.method.name,
                flops_ratio=member.flops_ratio or 0.0,
                accuracy=member.accuracy or 0.0,
            )
            for member in front(self.outcomes)
        )
        return StudyProgress(
            done=counts["completed"],
            running=len(self.running),
            stopped=counts["stopped"],
            failed=counts["failed"],
            seconds=self.clock.now(),
            eta=self._eta(),
            trials=self.limits.trials,
            minutes=None if self.limits.deadline is None else self.limits.deadline / 60,
            dense_accuracy=self.dense_accuracy,
            front=points,
            latest=tuple(latest),
        )

    def close(self) -> None:
        """Show the end.

        Raises:
            SearchInterrupted: the user ended the session.
            StudyError: nothing that was pruned ran to its end.
        """
        self.refresh(force=True)
        if self.interrupted:
            count = len(self.outcomes)
            raise SearchInterrupted(
                f"stopped with {count} outcomes kept; go on with `autoprune resume {self.folder.path}`"
            )
        if not candidates(self.outcomes):
            raise StudyError(_why_nothing(self.outcomes), where=str(self.folder.path))

    def _eta(self) -> float | None:
        """By time if the budget has a deadline, by the pace of this session if it has a number of trials."""
        now, times = self.clock.now(), []
        if self.limits.deadline is not None:
            times.append(max(self.limits.deadline - now, 0.0))
        done, left = len(self.outcomes) - self._before, self.remaining()
        if left is not None and done:
            times.append((left + len(self.running)) * (now - self.started) / done)
        return min(times) if times else None

    def _tidy_models(self) -> None:
        """Keep the models of the front and of the controls; the disk stays bounded."""
        wanted = {member.id for member in front(self.outcomes)}
        wanted |= {outcome.id for outcome in self.outcomes if outcome.control and outcome.completed}
        ended = {outcome.id for outcome in self.outcomes}
        for path in self.folder.models.glob("[0-9]*"):
            # A folder whose outcome is not noted yet was written a moment ago by a worker, or a crash came in between:
            # then the recipe runs again and writes it anew.
            if int(path.name) in ended - wanted:
                shutil.rmtree(path)


def last_time(study: Study) -> float:
    """The latest moment the logs speak of, in seconds since the study began."""
    proposed = [proposal.proposed for proposal in study.proposals]
    return max([0.0, *proposed, *(outcome.finished for outcome in study.outcomes)])


def _why_nothing(outcomes: Sequence[Outcome]) -> str:
    errors = Counter(outcome.error for outcome in outcomes if outcome.error)
    if not errors:
        return f"none of {len(outcomes)} trials pruned something and completed: the budget was too small"
    error, count = errors.most_common(1)[0]
    return f"none of {len(outcomes)} trials completed; {count} of them failed with: {error}"
