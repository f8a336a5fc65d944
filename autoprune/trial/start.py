"""Where a trial starts: the trained dense model, one whose weights are drawn anew, or what another recipe left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autoprune.engine.allocation.allocate import allocate, check_target, share_kept
from autoprune.engine.cost import Cost, cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.errors import InputError
from autoprune.methods import Method
from autoprune.recipe import Recipe, Target
from autoprune.trial.pruned_model import load_pruned
from autoprune.trial.remains import Remains
from autoprune.trial.shared import SharedState, where_possible

#: A cost that was written down as a ratio and read again may differ from itself by so much.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """Where a trial starts.

    Fields:
        model: what the method works on first; its graph is `remains.left`.
        remains: what is left of the dense network: all of it, where nothing was pruned before.
    """

    model: nn.Module
    remains: Remains

    @property
    def graph(self) -> ChannelGraph:
        """The channel graph of `model`."""
        return self.remains.left


def first_model(recipe: Recipe, shared: SharedState) -> nn.Module:
    """The dense model with its `trained` weights or, from `scratch`, with weights drawn with the recipe's seed."""
    return shared.task.build(recipe.seed) if recipe.weights == "scratch" else shared.model


def choose_start(recipe: Recipe, method: Method, shared: SharedState, parent: Path | None = None) -> StartingPoint:
    """Where the recipe starts: with the model of `parent`, or with a dense one.

    A dense model is traced in each grouping mode that the allocation allows. Of those that can meet the target it is
    the one that can keep most of the scores of the first weights.

    Raises:
        TargetError: none of them can.
        InputError: the recipe goes on from another one, and the parent's model is missing.
    """
    starts = _possible_starts(recipe, method, shared, parent)
    if method.is_dense:
        return starts[0]
    possible = where_possible(lambda start: _check_start(start, recipe, method, shared), starts)
    if len(starts) == 1:
        return possible[0]
    return max(possible, key=lambda start: _share_of_scores_kept(start, recipe, method, shared))


def meets_already(start: StartingPoint, recipe: Recipe, dense: Cost) -> bool:
    """Whether a recipe that goes on from another trains on without a cut: the start costs no more than its target."""
    now = start.remains.ratios(dense)
    limits = recipe.target.ratios()
    return recipe.weights == "front" and all(now[name] <= limit * (1 + ROUNDING) for name, limit in limits.items())


def target_of_cut(target: Target, method: Method, graph: ChannelGraph, cut: int, start: Cost, dense: Cost) -> Target:
    """What the model may cost after cut number `cut` (from 0), relative to what it costs before it.

    Args:
        target: of the recipe, relative to the dense model.
        graph: of the model before the cut.
        start: cost of the model that the trial starts with; the method's schedule leads from there to the target.
        dense: cost of the dense model.
    """
    first, now = start.ratios(dense), cost(graph, Keep.all()).ratios(dense)
    left: dict[str, float] = {}
    for name, limit in target.ratios().items():
        after = first[name] * method.left_after(min(1.0, limit / first[name]), cut + 1)
        left[name] = min(1.0, after / now[name])
    return Target(**left)


def _possible_starts(recipe: Recipe, method: Method, shared: SharedState, parent: Path | None) -> list[StartingPoint]:
    if recipe.weights == "front":
        if parent is None:
            allowed = "a search, whose front holds it, or the folder of its model"
            raise InputError(f"the model of its parent {recipe.parent} is missing", where="recipe", allowed=allowed)
        saved = load_pruned(parent, shared)
        return [_prepared_start(saved.model, saved.remains, method)]
    first = first_model(recipe, shared)
    return [
        _prepared_start(first, Remains(traced), method) for traced in shared.traced_models(recipe.allocation.grouped)
    ]


def _prepared_start(model: nn.Module, remains: Remains, method: Method) -> StartingPoint:
    prepared = method.prepare(model)
    return StartingPoint(prepared, remains if prepared is model else remains.of(prepared))


def _last_target(start: StartingPoint, recipe: Recipe, method: Method, shared: SharedState) -> Target:
    last, began = len(method.stage_shares) - 1, cost(start.graph, Keep.all())
    return target_of_cut(recipe.target, method, start.graph, last, began, shared.dense_cost)


def _check_start(start: StartingPoint, recipe: Recipe, method: Method, shared: SharedState) -> StartingPoint:
    check_target(start.graph, _last_target(start, recipe, method, shared), recipe.allocation)
    return start


def _share_of_scores_kept(start: StartingPoint, recipe: Recipe, method: Method, shared: SharedState) -> float:
    context = shared.context(start.model, recipe.seed, start.graph)
    scores = shared.scores(method, context, start.remains.traced)
    allocation = shared.allocation(recipe.allocation, start.remains.traced, start.graph)
    keep = allocate(start.graph, scores, _last_target(start, recipe, method, shared), allocation)
    return share_kept(start.graph, scores, keep)
