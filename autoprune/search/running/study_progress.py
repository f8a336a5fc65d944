"""Progress: a search at one moment, for a view that shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from autoprune.errors import AutopruneError
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome
from autoprune.study.tradeoff import Tradeoff


class SearchInterrupted(AutopruneError):  # noqa: N818 - nothing went wrong
    """The user ended the search; everything that had finished is kept."""


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One member of the front so far; `costs` are those that the study trades off, relative to the dense model."""

    id: int
    method: str
    metric: float
    costs: Mapping[str, float]

    @classmethod
    def of(cls, outcome: Outcome, tradeoff: Tradeoff) -> FrontPoint:
        """An outcome that may be on a front of the study."""
        costs = {name: outcome.costs[name] or 0.0 for name in tradeoff.costs}
        assert outcome.metric is not None, "a member of a front has completed"
        return cls(id=outcome.id, method=outcome.recipe.method.name, metric=outcome.metric, costs=costs)


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """A search at one moment, for a view that shows it.

    Fields:
        done: outcomes with status completed.
        paused: trials that wait at a rung.
        seconds: since the study began.
        eta: seconds until the budget is used up, as far as one can tell; None = not yet.
        used: share of the budget, the largest if there are several; None = nothing is counted.
        metric: what models are judged by.
        dense_metric: of the dense model.
        front: cheapest first.
        latest: outcomes since the last update, oldest first.
    """

    done: int
    running: int
    paused: int
    stopped: int
    failed: int
    seconds: float
    eta: float | None
    used: float | None
    metric: MetricSpec
    dense_metric: float | None
    front: tuple[FrontPoint, ...]
    latest: tuple[Outcome, ...]


def count_ended(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many outcomes there are of each status, by the fields of `StudyProgress`."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {"done": counts["completed"], "stopped": counts["stopped"], "failed": counts["failed"]}


class View(Protocol):
    """Shows progress; `update` is called at most twice a second, and once at the end."""

    def update(self, progress: StudyProgress) -> None:
        """Show it."""

    def close(self) -> None:
        """The search is over, or has failed."""
