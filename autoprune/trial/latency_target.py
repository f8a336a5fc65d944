"""A target of latency, as the FLOPs at which pruned models meet it.

Methods aim at FLOPs or parameters, whose cost is exact and falls with every channel. Time is neither, so the FLOPs are
found first at which a model comes down to the time that is asked for: models are pruned without scores, by the
allocation's shares, and timed as the trial's own model will be. Widths that were timed before are not timed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from autoprune.engine.allocation.allocate import allocate_by, smallest
from autoprune.engine.allocation.strategies import limits_of, strategy_of, without_scores
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.errors import TargetError
from autoprune.recipe import Allocation, Recipe, Target
from autoprune.study.constraints import Latency
from autoprune.trial.shared import SharedState, TracedModel

#: The note of an outcome that says what was found.
FLOPS_NOTE = "flops_for_latency"
#: FLOPs are found this near, as a share of the dense model's; half a step of widths moves the time by more.
NEAR = 0.01


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
    low = smallest(traced.graph, allocation).ratios(shared.dense_cost)["flops"] + NEAR
    least = _time_at(low, allocation, traced, shared, latency)
    if least > limit:
        what = f"latency: {limit:g} cannot be reached: a model of {low:.0%} of the FLOPs takes {least:.2f}"
        raise TargetError(what, where="target", allowed=f"latency >= {np.ceil(least * 100) / 100:.2f}")
    high = 1.0
    while high - low > NEAR:
        middle = (low + high) / 2
        if _time_at(middle, allocation, traced, shared, latency) <= limit:
            low = middle
        else:
            high = middle
    return low


def _time_at(flops: float, allocation: Allocation, traced: TracedModel, shared: SharedState, latency: Latency) -> float:
    """What a model of so many FLOPs takes, relative to the dense one."""
    graph = traced.graph
    scores = {group.id: np.zeros(group.size) for group in graph.prunable}
    strategy = without_scores(strategy_of(allocation))
    keep = allocate_by(graph, scores, Target(flops=min(flops, 1.0)), strategy, limits_of(allocation))
    return 1.0 if keep == Keep.all() else shared.timing(prune(traced.model, graph, keep), latency).ratio
