"""Evaluator: the seam between a search and what it searches over. `TaskEvaluator` is the real one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autoprune.search.running.study_clock import StudyClock
from autoprune.study.outcome import Outcome, Proposal, Rung
from autoprune.trial.cache import Store

#: Called at every rung with the cost ratios; False = stop now.
Report = Callable[[Rung, Mapping[str, float]], bool]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What became of a trial: its outcome and, if it completed, the files of the pruned model by name."""

    outcome: Outcome
    files: Mapping[str, bytes] = field(default_factory=dict)


class Evaluator(Protocol):
    """Runs trials, one after the other, in one process."""

    def run(self, proposal: Proposal, report: Report, scratch: Path | None, parent: Path | None) -> Evaluation:
        """Run one recipe until its end or until `report` says no; a failure is an outcome with status `failed`.

        Args:
            proposal: the recipe and its number.
            report: hears of every rung.
            scratch: holds what the trial goes on from, if it paused before, and what it leaves to go on from; None =
                the trial does not pause.
            parent: folder with the model that the recipe goes on from; None = it starts from the dense model.
        """


#: Builds an evaluator where it will work; must be picklable, as Ray sends it to the workers.
OpenEvaluator = Callable[[StudyClock, Store], Evaluator]


def run_safely(
    evaluator: Evaluator,
    proposal: Proposal,
    report: Report,
    clock: StudyClock,
    scratch: Path | None = None,
    parent: Path | None = None,
) -> Evaluation:
    """Run one trial; whatever goes wrong becomes an outcome, and so does a metric that is NaN."""
    started = clock.now()
    try:
        evaluation = evaluator.run(proposal, report, scratch, parent)
    except Exception as error:  # noqa: BLE001 - the search goes on whatever a method does
        reason = describe_error(error)
    else:
        metric = evaluation.outcome.metric
        if not evaluation.outcome.completed or (metric is not None and math.isfinite(metric)):
            return evaluation
        reason = f"the metric is {metric}"
    return Evaluation(outcome=failed_outcome(proposal, reason, started=started, finished=clock.now()))


def failed_outcome(proposal: Proposal, error: str, *, started: float, finished: float) -> Outcome:
    """The outcome of a trial that failed."""
    return Outcome(
        id=proposal.id,
        recipe=proposal.recipe,
        status="failed",
        error=error,
        started=started,
        finished=finished,
        seed=proposal.recipe.seed,
        control=proposal.control,
    )


def describe_error(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, as text that fits a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__
