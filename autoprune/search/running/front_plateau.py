"""Plateau: whether the front of a whole study has stopped to grow, or the model that is looked for to get cheaper;
either ends the search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoprune.search.running.limits import Limits
from autoprune.study.outcome import Outcome
from autoprune.study.pareto import candidates, hypervolume_over_time
from autoprune.study.progress import GoalProgress
from autoprune.study.tradeoff import ACCURACY_AND_FLOPS, Tradeoff


class PlateauCheck:
    """Looks for a plateau once per outcome, as that takes a while.

    Args:
        outcomes: those so far; what ends later is added to this list.
        tradeoff: of the study.
        dense_metric: of the dense model; None only where no goal is.
    """

    def __init__(self, outcomes: list[Outcome], tradeoff: Tradeoff, dense_metric: float | None) -> None:
        self._outcomes, self._tradeoff, self._dense_metric = outcomes, tradeoff, dense_metric
        self._looked_at = 0
        self._found = False
        self._goal: GoalProgress | None = None

    def is_reached(self, limits: Limits) -> bool:
        """Whether the front has stopped to grow, see `on_plateau`, or the goal to get cheaper, see `goal_progress`."""
        self._look(limits)
        return self._found

    def goal(self, limits: Limits) -> GoalProgress | None:
        """How far the goal is; None without one."""
        self._look(limits)
        return self._goal

    def _look(self, limits: Limits) -> None:
        if self._looked_at == len(self._outcomes) and (self._goal is not None or limits.goal is None):
            return
        self._looked_at = len(self._outcomes)
        if limits.goal is None:
            self._found = on_plateau(self._outcomes, limits, self._tradeoff)
            return
        assert self._dense_metric is not None, "a search measures the dense model before its first trial"
        self._goal = goal_progress(self._outcomes, limits, self._tradeoff, self._dense_metric)
        self._found = self._goal.settled


def on_plateau(outcomes: Sequence[Outcome], limits: Limits, tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> bool:
    """Whether the last `patience` trials that were pruned and completed brought hardly more hypervolume."""
    if limits.patience is None or limits.goal is not None:
        return False
    volumes = hypervolume_over_time(outcomes, tradeoff)[:, 1]
    if len(volumes) <= limits.patience:
        return False
    return bool(volumes[-1] < volumes[-1 - limits.patience] * (1 + limits.gain))


def goal_progress(outcomes: Sequence[Outcome], limits: Limits, tradeoff: Tradeoff, dense_metric: float) -> GoalProgress:
    """The cheapest model within the goal's loss, by the first cost, and for how many trials it has not got cheaper."""
    goal = limits.goal
    assert goal is not None
    metric, cost = tradeoff.metric, tradeoff.costs[0]
    least = metric.worse_by(dense_metric, goal.within)
    lowest, idle, best = math.inf, 0, None
    pool = sorted(candidates(outcomes, tradeoff), key=lambda outcome: (outcome.finished, outcome.id))
    for outcome in pool:
        value, reached = outcome.costs[cost] or 0.0, metric.reaches(outcome.metric or 0.0, least)
        if reached and (best is None or value < (best.costs[cost] or 0.0)):
            best = outcome
        if reached and value < lowest * (1 - limits.gain):
            lowest, idle = value, 0
        elif best is not None:
            idle += 1
    return GoalProgress(
        text=f"within {metric.points_text(goal.within)} of the dense model",
        cost_name=cost,
        id=None if best is None else best.id,
        cost=None if best is None else best.costs[cost],
        idle=idle,
        patience=max(limits.patience or 1, math.ceil(goal.share * len(pool))),
    )
