"""What a strategy means for one graph: the one place that tells strategies apart."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.engine.allocation.features import feature_weights
from autoprune.engine.allocation.isomorphism import isomorphic_classes
from autoprune.engine.allocation.prices import flops_per_unit
from autoprune.engine.allocation.ratio_keys import weights_by_key
from autoprune.engine.allocation.strategies import Features, Global, Ratios, Strategy, Uniform
from autoprune.engine.graph import ChannelGraph, Floats, Ints
from autoprune.errors import InputError


@dataclass(frozen=True, eq=False)
class RemovalRule:
    """How eagerly each group is pruned, and by what units are put in order.

    Fields:
        weights: shape (prunable groups,); a group of weight 0 stays whole. Scores are divided by them.
        normalise: units go by their scores, divided by this figure of their group (see `Allocation.normalise`). None:
            units go by the share of their group that is gone by then, over the group's weight.
        classes: number of each group's class, shape (prunable groups,): units are put in order inside a class, and go
            by the share of their class that is gone by then. None: all groups are of one class.
    """

    weights: Floats
    normalise: str | None = None
    classes: Ints | None = None


def rule_of(graph: ChannelGraph, strategy: Strategy, scored: Container[str]) -> RemovalRule:
    """The rule of a strategy; groups that are not `scored` stay whole.

    Raises:
        InputError: a ratio key that matches no group; a coefficient of `sensitivity`, or scores per `latency`, which
            only a trial can measure.
    """
    match strategy:
        case Uniform():
            return RemovalRule(_per_group(graph, dict.fromkeys(graph.by_id, 1.0), scored))
        case Ratios(ratios=ratios):
            return RemovalRule(_per_group(graph, weights_by_key(graph, ratios), scored))
        case Features():
            return RemovalRule(_per_group(graph, feature_weights(graph, strategy), scored))
        case Global(normalise="isomorphic"):
            return RemovalRule(_per_group(graph, _prices(graph, strategy), scored), "mean", isomorphic_classes(graph))
        case Global(normalise=normalise):
            return RemovalRule(_per_group(graph, _prices(graph, strategy), scored), normalise)


def _prices(graph: ChannelGraph, strategy: Global) -> Mapping[str, float]:
    """What scores are divided by, beside their group's figure, by group."""
    match strategy.per:
        case "flops":
            return flops_per_unit(graph)
        case "given":
            return {group: weight or 1.0 for group, weight in weights_by_key(graph, strategy.prices, "prices").items()}
        case "latency":
            what, allowed = "a graph has no latency", "channel, flops, given; latency in a trial, which measures it"
            raise InputError(what, where="allocation.per", allowed=allowed)
    return dict.fromkeys(graph.by_id, 1.0)


def may_lose_units(graph: ChannelGraph, strategy: Strategy, scored: Container[str]) -> NDArray[np.bool_]:
    """Which groups may be pruned at all, shape (prunable groups,).

    Only `ratios` leave groups out. Coefficients of `features` say how eagerly a group is pruned, never whether.

    Raises:
        InputError: a ratio key that matches no group.
    """
    if isinstance(strategy, Ratios):
        return rule_of(graph, strategy, scored).weights > 0
    return rule_of(graph, Uniform(), scored).weights > 0


def _per_group(graph: ChannelGraph, weights: Mapping[str, float], scored: Container[str]) -> Floats:
    return np.array([weights[group.id] if group.id in scored else 0.0 for group in graph.prunable])
