"""Where a trial starts: the trained dense model, or one whose weights are drawn anew."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from autoprune.engine.allocation.allocate import allocate, check_target, share_kept
from autoprune.engine.cost import Cost, cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import compose
from autoprune.methods import Method
from autoprune.recipe import Recipe, Target
from autoprune.trial.shared import SharedState, TracedModel, where_possible


@dataclass(frozen=True, eq=False)
class Remains:
    """What is left of a network: its graph, and what is kept of it; the ground that costs and widths are counted on."""

    graph: ChannelGraph
    keep: Keep

    def after(self, keep: Keep) -> Remains:
        """After one more cut; `keep` is of the graph that is left now."""
        return Remains(self.graph, compose(self.graph, self.keep, keep))

    def ratios(self, dense: Cost) -> dict[str, float]:
        """Costs relative to the dense model's."""
        return cost(self.graph, self.keep).ratios(dense)


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """Where a trial starts.

    Fields:
        traced: the dense model in the grouping mode that the trial works in.
        model: what the method works on first; the graph of `remains` is its graph.
        remains: what is left of that graph's network: all of it, where nothing was pruned before.
        images: training images that were spent on the model before the trial.
    """

    traced: TracedModel
    model: nn.Module
    remains: Remains
    images: int = 0

    @property
    def graph(self) -> ChannelGraph:
        """The channel graph of `model`."""
        return self.remains.graph


def first_model(recipe: Recipe, shared: SharedState) -> nn.Module:
    """The dense model with its `trained` weights or, from `scratch`, with weights drawn with the recipe's seed."""
    return shared.model if recipe.weights == "trained" else shared.task.build(recipe.seed)


def choose_start(recipe: Recipe, method: Method, shared: SharedState) -> StartingPoint:
    """Of the grouping modes that can meet the target, the one that can keep most of the scores of the first weights.

    Raises:
        TargetError: none of them can.
    """
    modes = shared.traced_models(recipe.allocation.grouped)
    starts = [_start_in_mode(traced, recipe, method, shared) for traced in modes]
    if method.is_dense:
        return starts[0]
    possible = where_possible(lambda start: _check_start(start, recipe, method, shared), starts)
    if len(starts) == 1:
        return possible[0]
    return max(possible, key=lambda start: _share_of_scores_kept(start, recipe, method, shared))


def target_of_cut(target: Target, method: Method, graph: ChannelGraph, cut: int, dense: Cost) -> Target:
    """What the model may cost after cut number `cut` (from 0), relative to what it costs before it.

    Args:
        target: of the recipe, relative to the dense model.
        graph: of the model before the cut.
        dense: cost of the dense model.
    """
    now = cost(graph, Keep.all()).ratios(dense)
    limits = target.ratios()
    return Target(**{name: min(1.0, method.left_after(ratio, cut + 1) / now[name]) for name, ratio in limits.items()})


def _start_in_mode(traced: TracedModel, recipe: Recipe, method: Method, shared: SharedState) -> StartingPoint:
    first = first_model(recipe, shared)
    model = method.prepare(first)
    graph = traced.graph if model is first else traced.graph_of(model)
    return StartingPoint(traced, model, Remains(graph, Keep.all()))


def _last_target(start: StartingPoint, recipe: Recipe, method: Method, shared: SharedState) -> Target:
    last = len(method.stage_shares) - 1
    return target_of_cut(recipe.target, method, start.graph, last, shared.dense_cost)


def _check_start(start: StartingPoint, recipe: Recipe, method: Method, shared: SharedState) -> StartingPoint:
    check_target(start.graph, _last_target(start, recipe, method, shared), recipe.allocation)
    return start


def _share_of_scores_kept(start: StartingPoint, recipe: Recipe, method: Method, shared: SharedState) -> float:
    context = shared.context(start.model, recipe.seed, start.graph)
    scores = shared.scores(method, context, start.traced)
    allocation = shared.allocation(recipe.allocation, start.traced, start.graph)
    keep = allocate(start.graph, scores, _last_target(start, recipe, method, shared), allocation)
    return share_kept(start.graph, scores, keep)
