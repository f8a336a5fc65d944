"""Evaluator: the seam between a search and what it searches over. The real one runs recipes on a task's bench."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from autoprune.search.running.study_clock import StudyClock
from autoprune.study.outcome import Outcome, Proposal, Rung, RunInterval
from autoprune.trial.cache import Store

#: Called at every rung with the cost ratios; False = stop now.
Report = Callable[[Rung, Mapping[str, float]], bool]


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A part of a recipe's way, from its start or the rung where it paused, that one worker runs.

    Fields:
        until: the rung at which it pauses, as a share of the training images; 1 = nowhere.
        resumed: it goes on from what is in `states/<id>`.
    """

    proposal: Proposal
    until: float = 1.0
    resumed: bool = False

    def to_plain(self) -> dict[str, Any]:
        """What a worker is sent; `Leg.from_plain(leg.to_plain()) == leg`."""
        return {"proposal": self.proposal.to_json(), "pause": self.until, "resumed": self.resumed}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Leg:
        """The inverse of `to_plain`; other keys are left alone."""
        proposal = Proposal.from_json(data["proposal"])
        return cls(proposal=proposal, until=data["pause"], resumed=data["resumed"])


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What became of a recipe: its outcome and, if it completed, the files of the pruned model by name."""

    outcome: Outcome
    files: Mapping[str, bytes] = field(default_factory=dict)


class Evaluator(Protocol):
    """Runs recipes, one after the other, in one process."""

    def run(self, proposal: Proposal, report: Report, scratch: Path | None) -> Evaluation:
        """Run one recipe until its end or until `report` says no; one that fails is an outcome with status `failed`.

        In `scratch` lies what it goes on from, if it paused before, and what it leaves to go on from; None = it will
        not pause.
        """


def run_leg(
    evaluator: Evaluator, leg: Leg, report: Report, clock: StudyClock, scratch: Path, worker: str = ""
) -> Evaluation:
    """Run one leg; a recipe that comes as far as its rung has the status `paused`.

    Args:
        report: hears of every rung; False = stop for good, as the time is over.
        scratch: holds the files of `states/<id>` if the leg is resumed, else nothing.
        worker: who runs it.
    """
    paused = False

    def heard(rung: Rung, ratios: Mapping[str, float]) -> bool:
        nonlocal paused
        goes_on = report(rung, ratios)
        paused = goes_on and rung.comparable and leg.until <= rung.share < 1
        return goes_on and not paused

    needed, began = leg.resumed or leg.until < 1, clock.now()
    evaluation = run_safely(evaluator, leg.proposal, heard, clock, scratch if needed else None)
    interval = RunInterval(worker=worker, started=began, finished=clock.now())
    outcome = replace(evaluation.outcome, worker=worker, legs=(interval,))
    if outcome.status == "stopped" and paused:
        outcome = replace(outcome, status="paused")
    elif outcome.status == "stopped":  # without an error it would say that the recipe lost a comparison
        outcome = replace(outcome, error=outcome.error or "its time was over")
    return replace(evaluation, outcome=outcome)


def run_safely(
    evaluator: Evaluator, proposal: Proposal, report: Report, clock: StudyClock, scratch: Path | None = None
) -> Evaluation:
    """Run one recipe; whatever goes wrong becomes an outcome, and so does an accuracy that is NaN."""
    started = clock.now()
    try:
        evaluation = evaluator.run(proposal, report, scratch)
    except Exception as error:  # noqa: BLE001 - the search goes on whatever a method does
        return failed(proposal, describe(error), started=started, finished=clock.now())
    accuracy = evaluation.outcome.accuracy
    if evaluation.outcome.completed and (accuracy is None or not math.isfinite(accuracy)):
        return failed(proposal, f"the accuracy is {accuracy}", started=started, finished=clock.now())
    return evaluation


def failed(proposal: Proposal, error: str, *, started: float, finished: float) -> Evaluation:
    """The outcome of a recipe that failed, without a model."""
    return Evaluation(
        outcome=Outcome(
            id=proposal.id,
            recipe=proposal.recipe,
            status="failed",
            error=error,
            started=started,
            finished=finished,
            seed=proposal.recipe.seed,
            control=proposal.control,
        )
    )


def describe(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, as text that fits a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


#: Builds an evaluator where it will work; must be picklable, as Ray sends it to the workers.
OpenEvaluator = Callable[[StudyClock, Store], Evaluator]
