"""A target of latency, as the FLOPs at which pruned models meet it.

Methods aim at FLOPs or parameters, whose cost is exact and falls with every channel. Time is neither, so the FLOPs are
found first at which a model comes down to the time that is asked for: models are pruned without scores, by the
allocation's shares, and timed as the trial's own model will be. Widths that were timed before are not timed again.

A trial alone bisects by timing, some seven models. Trials of a study share a prediction (`SharedState.predicted_time`):
they bisect by it and time what it finds, so that two or three timings are enough. The FLOPs are those of a model that
scores have no say in; where they have one, the prediction corrects them once it is known what is kept (`LatencyAim`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoprune.engine.allocation.allocate import allocate_by, smallest
from autoprune.engine.allocation.predicted_time import PredictedTime
from autoprune.engine.allocation.strategies import limits_of, strategy_of, without_scores
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.errors import TargetError
from autoprune.methods import Method
from autoprune.recipe import Allocation, Recipe, Target
from autoprune.study.constraints import Latency
from autoprune.trial.remains import Remains
from autoprune.trial.shared import SharedState, TracedModel

#: The note of an outcome that says what was found.
FLOPS_NOTE = "flops_for_latency"
#: FLOPs are found this near, as a share of the dense model's; half a step of widths moves the time by more.
NEAR = 0.01
#: So many models are timed to correct a prediction, unless one takes nearly what is asked for: this share of it less.
TIMINGS, NEAR_ENOUGH = 4, 0.03

#: The time of a model of so many FLOPs, relative to the dense one.
TimeAt = Callable[[float], float]


def met_by_flops(recipe: Recipe, shared: SharedState, latency: Latency | None) -> Recipe:
    """The recipe with FLOPs in the place of its target of latency; one without such a target as it is.

    Args:
        latency: how models are timed; None = by `Latency()`.

    Raises:
        TargetError: the smallest model that the allocation allows takes longer.
    """
    limit, target = recipe.target.latency, recipe.target
    if limit is None:
        return recipe
    traced = shared.traced_models(recipe.allocation.grouped)[0]
    allocation = shared.allocation(recipe.allocation, traced, traced.graph)
    flops = _most_flops(limit, allocation, traced, shared, latency or Latency())
    found = flops if target.flops is None else min(flops, target.flops)
    return replace(recipe, target=replace(target, latency=None, flops=found))


@dataclass(frozen=True, eq=False)
class LatencyAim:
    """What a trial's own cut is held to.

    Fields:
        limit: the time to come down to, relative to the dense model.
        most: FLOPs that the recipe allows besides, relative to the dense model.
        prediction: of models of the allocation's widths.
        correction: what the prediction is wrong by, as a factor, at the FLOPs that were found.
    """

    limit: float
    most: float
    prediction: PredictedTime
    correction: float

    @classmethod
    def of(
        cls, recipe: Recipe, flops: float, method: Method, shared: SharedState, latency: Latency | None
    ) -> LatencyAim | None:
        """The aim of a recipe with a target of latency.

        None where nothing is predicted, or where the FLOPs have had a say before the cut: a trial is run again with
        those that it ended with.

        Args:
            flops: that `met_by_flops` has found.
        """
        aims_before = (method.stage_aims and any(method.stage_shares)) or len(method.stage_shares) > 1
        if recipe.target.latency is None or shared.cache.store is None or aims_before:
            return None
        traced = shared.traced_models(recipe.allocation.grouped)[0]
        allocation = shared.allocation(recipe.allocation, traced, traced.graph)
        how = latency or Latency()
        prediction = shared.predicted_time(traced, allocation, how)
        keep = _keep_of(flops, traced.graph, allocation)
        time = shared.timing(prune(traced.model, traced.graph, keep), how).ratio  # known, if nothing else limits them
        correction = time / prediction.ratio(keep.counts(traced.graph))
        return cls(recipe.target.latency, recipe.target.flops or 1.0, prediction, correction)

    def time_of(self, remains: Remains) -> float | None:
        """What the prediction says of a cut; None of decomposed layers, which are no part of it."""
        if remains.graph is not self.prediction.graph:
            return None
        return self.correction * self.prediction.ratio(remains.keep.counts(remains.graph))

    def distance(self, time: float) -> tuple[bool, float]:
        """How far a time lies from the limit, to be compared: any below it is better than any above it."""
        return time > self.limit, abs(time - self.limit)

    def corrected(self, recipe: Recipe, time: float) -> Recipe | None:
        """The recipe with other FLOPs, by what its cut takes; None = nearly what was asked for."""
        if recipe.target.flops is None:
            return None
        if self.limit * (1 - NEAR_ENOUGH) <= time <= self.limit:
            return None
        # a little below, as time and FLOPs do not quite go together
        flops = recipe.target.flops * self.limit * (1 - NEAR_ENOUGH / 2) / time
        if (found := min(flops, self.most)) == recipe.target.flops:
            return None
        return replace(recipe, target=replace(recipe.target, flops=found))


def aimed_again(recipe: Recipe, notes: Mapping[str, Any]) -> Recipe:
    """The recipe with the FLOPs that its trial found, as the outcome's notes say: times differ from run to run."""
    found = notes.get(FLOPS_NOTE)
    if found is None:
        return recipe
    return replace(recipe, target=replace(recipe.target, latency=None, flops=float(found)))


def _most_flops(
    limit: float, allocation: Allocation, traced: TracedModel, shared: SharedState, latency: Latency
) -> float:
    """The most FLOPs, as a ratio, at which a model takes no more than `limit` of the dense model's time; bisected."""
    graph, lowest = traced.graph, smallest(traced.graph, allocation).ratios(shared.dense_cost)["flops"] + NEAR

    def measured(flops: float) -> float:
        keep = _keep_of(flops, graph, allocation)
        return 1.0 if keep == Keep.all() else shared.timing(prune(traced.model, graph, keep), latency).ratio

    if (least := measured(lowest)) > limit:
        what = f"latency: {limit:g} cannot be reached: a model of {lowest:.0%} of the FLOPs takes {least:.2f}"
        raise TargetError(what, where="target", allowed=f"latency >= {np.ceil(least * 100) / 100:.2f}")
    if shared.cache.store is not None:
        prediction = shared.predicted_time(traced, allocation, latency)
        predicted = lambda flops: prediction.ratio(_keep_of(flops, graph, allocation).counts(graph))  # noqa: E731
        if (found := _checked(limit, lowest, predicted, measured)) is not None:
            return found
    return _bisected(limit, lowest, measured)


def _checked(limit: float, lowest: float, predicted: TimeAt, measured: TimeAt) -> float | None:
    """The FLOPs where the prediction says that the limit is met, and a timing that it is nearly; None = nowhere found.

    After a timing the prediction is corrected by what it was wrong by there.
    """
    correction, met = 1.0, None
    for _ in range(TIMINGS):
        flops = _bisected(limit / correction, lowest, predicted)
        time = measured(flops)
        if time <= limit:
            met = max(flops, met or 0.0)
        if limit * (1 - NEAR_ENOUGH) <= time <= limit:
            break
        correction = time / predicted(flops)
    return met


def _bisected(limit: float, lowest: float, time_at: TimeAt) -> float:
    low, high = lowest, 1.0
    while high - low > NEAR:
        middle = (low + high) / 2
        if time_at(middle) <= limit:
            low = middle
        else:
            high = middle
    return low


def _keep_of(flops: float, graph: ChannelGraph, allocation: Allocation) -> Keep:
    """What is kept of so many FLOPs, whatever the scores."""
    scores = {group.id: np.zeros(group.size) for group in graph.prunable}
    strategy = without_scores(strategy_of(allocation))
    return allocate_by(graph, scores, Target(flops=min(flops, 1.0)), strategy, limits_of(allocation))
