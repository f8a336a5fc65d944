"""Which widths a group may have: the limits of an allocation count channels, the graph counts units."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from autoprune.engine.allocation.removal_rule import may_lose_units
from autoprune.engine.allocation.strategies import WidthLimits, limits_of, strategy_of
from autoprune.engine.graph import ChannelGraph, Ints
from autoprune.recipe import Allocation


def allowed_widths(graph: ChannelGraph, allocation: Allocation, scored: Container[str]) -> dict[str, Ints]:
    """The widths that each prunable group may have, in units, ascending, the dense one last.

    Args:
        scored: ids of the groups that may be pruned.
    """
    widths = widths_in_reach(graph, allocation, scored)
    rows = zip(graph.prunable, widths.lowest, widths.dense, widths.step, strict=True)
    return {group.id: np.append(np.arange(lowest, dense, step), dense) for group, lowest, dense, step in rows}


@lru_cache(maxsize=64)
def channels_per_unit(graph: ChannelGraph) -> Mapping[str, int]:
    """Group id -> the filters that one of its units owns in a layer; frozen groups included.

    That is 1 for a plain convolution and g for one of g groups, all of which lose the same filter. Where the layers of
    a group differ it is the greatest common divisor: a multiple of it is a multiple in each of them.
    """
    channels = np.zeros(graph.unit_count, dtype=np.int64)
    for slot in graph.slots:
        if slot.role == "out":
            units, filters = np.unique(slot.units[slot.owned], return_counts=True)
            channels[units] = np.gcd(channels[units], filters)
    return {group.id: int(channels[group.units[0]]) for group in graph.groups}


@dataclass(frozen=True, eq=False)
class WidthGrid:
    """The widths that each prunable group may have, in units: `dense`, and multiples of `step` from `lowest` up.

    All of shape (prunable groups,). A group that is not pruned has no other width than `lowest`, its dense one.
    """

    dense: Ints
    lowest: Ints
    step: Ints

    @classmethod
    def of(cls, graph: ChannelGraph, limits: WidthLimits, may_lose: NDArray[np.bool_]) -> WidthGrid:
        """The widths within the limits; groups that may not lose units, shape (prunable groups,), stay whole."""
        channels = np.array([channels_per_unit(graph)[group.id] for group in graph.prunable], dtype=np.int64)
        step = limits.round_to // np.gcd(channels, limits.round_to)
        by_ratio = np.ceil(graph.sizes * (1 - limits.max_ratio) - 1e-9).astype(np.int64)
        floor = np.maximum(np.maximum(by_ratio, -(-limits.min_channels // channels)), 1)
        lowest = np.minimum(graph.sizes, -(-floor // step) * step)
        return cls(graph.sizes, np.where(may_lose, lowest, graph.sizes), step)

    def below(self, kept: Ints) -> Ints:
        """The next lower width of every group; the lowest has none and stays."""
        lower: Ints = np.maximum(self.lowest, (kept - 1) // self.step * self.step)
        return lower

    def above(self, kept: Ints) -> Ints:
        """The next higher width of every group; the dense one has none and stays."""
        higher: Ints = np.minimum(self.dense, (kept // self.step + 1) * self.step)
        return higher


def widths_in_reach(graph: ChannelGraph, allocation: Allocation, scored: Container[str]) -> WidthGrid:
    """The widths that an allocation allows, whatever the scores."""
    return WidthGrid.of(graph, limits_of(allocation), may_lose_units(graph, strategy_of(allocation), scored))
