"""Which widths a group may have: the limits of an allocation count channels, the graph counts units."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from autoprune.engine.allocation.fast_widths import fast_widths
from autoprune.engine.allocation.removal_rule import may_lose_units
from autoprune.engine.allocation.strategies import WidthLimits, limits_of, strategy_of
from autoprune.engine.allocation.width_times import load_width_times
from autoprune.engine.graph import ChannelGraph, Ints
from autoprune.engine.keep import Keep
from autoprune.recipe import AUTO, Allocation

#: Multiples that widths are kept to where fast ones are too coarse for a target, the coarsest that do first.
FINER = (8, 4, 2, 1)


def allowed_widths(graph: ChannelGraph, allocation: Allocation, scored: Container[str]) -> dict[str, Ints]:
    """The widths that each prunable group may have, in units, ascending, the dense one last.

    Args:
        scored: ids of the groups that may be pruned.
    """
    widths = widths_in_reach(graph, allocation, scored)
    return {group.id: widths.of_group(column) for column, group in enumerate(graph.prunable)}


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
    """The widths that each prunable group may have, in units; the dense one always.

    Fields:
        dense, lowest: shape (prunable groups,). A group that is not pruned has no other width than its dense one.
        start: where the widths 0, 1, ... of a group begin in the next two, shape (prunable groups,).
        lower, higher: the next lower and the next higher width that the group may have; the lowest and the dense one
            where there is no other. Shape (sum over groups of dense + 1,).
    """

    dense: Ints
    lowest: Ints
    start: Ints
    lower: Ints
    higher: Ints

    @classmethod
    def of(cls, graph: ChannelGraph, limits: WidthLimits, may_lose: NDArray[np.bool_]) -> WidthGrid:
        """The widths within the limits; groups that may not lose units, shape (prunable groups,), stay whole."""
        channels = np.array([channels_per_unit(graph)[group.id] for group in graph.prunable], dtype=np.int64)
        column = np.repeat(np.arange(len(channels)), graph.sizes + 1)
        start = np.cumsum(graph.sizes + 1) - graph.sizes - 1
        width = np.arange(len(column)) - start[column]
        by_ratio = np.ceil(graph.sizes * (1 - limits.max_ratio) - 1e-9).astype(np.int64)
        floor = np.maximum(np.maximum(by_ratio, -(-limits.min_channels // channels)), 1)
        fits = _is_round(graph, limits, channels, column, width) & (width >= floor[column]) & may_lose[column]
        return cls._of_allowed(graph.sizes, start, column, width, fits | (width == graph.sizes[column]))

    @classmethod
    def _of_allowed(cls, dense: Ints, start: Ints, column: Ints, width: Ints, allowed: NDArray[np.bool_]) -> WidthGrid:
        """Of a mask over all widths of all groups, in which every group has its dense one."""
        places = np.arange(len(width))
        at_most = np.maximum.accumulate(np.where(allowed, places, -1))
        at_least = np.minimum.accumulate(np.where(allowed, places, len(places))[::-1])[::-1]
        lowest = width[at_least[start]]
        below = np.append(-1, at_most)[:-1]
        above = np.append(at_least, 0)[1:]
        lower = np.where(below >= start[column], width[below], lowest[column])
        higher = np.where(width < dense[column], width[np.minimum(above, len(places) - 1)], dense[column])
        return cls(dense, lowest, start, np.maximum(lower, lowest[column]), higher)

    def of_group(self, column: int) -> Ints:
        """The widths of a prunable group, ascending."""
        start, dense = int(self.start[column]), int(self.dense[column])
        above = np.unique(self.higher[start : start + dense + 1])
        return np.union1d(self.lowest[column : column + 1], above[above > self.lowest[column]])

    def has(self, column: Ints, width: Ints) -> NDArray[np.bool_]:
        """Whether groups may have these widths."""
        next_lower = self.lower[self.start[column] + np.minimum(width + 1, self.dense[column])]
        inside: NDArray[np.bool_] = (width == self.dense[column]) | (next_lower == width)
        return inside & (width >= self.lowest[column])

    def below(self, kept: Ints) -> Ints:
        """The next lower width of every group; the lowest has none and stays."""
        lower: Ints = self.lower[self.start + kept]
        return lower

    def above(self, kept: Ints) -> Ints:
        """The next higher width of every group; the dense one has none and stays."""
        return self.higher_of(np.arange(len(kept)), kept)

    def higher_of(self, column: Ints, width: Ints) -> Ints:
        """The same of chosen groups."""
        higher: Ints = self.higher[self.start[column] + width]
        return higher


def _is_round(graph: ChannelGraph, limits: WidthLimits, channels: Ints, column: Ints, width: Ints) -> NDArray[np.bool_]:
    """Which widths of which groups `round_to` allows, beside the dense ones."""
    if limits.round_to != AUTO:
        step = int(limits.round_to) // np.gcd(channels, int(limits.round_to))
        return np.asarray(width % step[column] == 0)
    return _is_fast(graph, limits.device)


@lru_cache(maxsize=64)
def _is_fast(graph: ChannelGraph, device: str) -> NDArray[np.bool_]:
    """The same for widths by their time: of all groups one after the other, shape (sum over groups of dense + 1,)."""
    channels = np.array([channels_per_unit(graph)[group.id] for group in graph.prunable], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype=bool), *fast_widths(graph, load_width_times(device), channels)])


def finer(limits: WidthLimits) -> Iterator[WidthLimits]:
    """The limits, and behind `round_to: auto` finer ones, for targets that fast widths do not come near enough to."""
    yield limits
    if limits.round_to == AUTO:
        yield from (replace(limits, round_to=step) for step in FINER)


def widths_in_reach(
    graph: ChannelGraph, allocation: Allocation, scored: Container[str], limits: WidthLimits | None = None
) -> WidthGrid:
    """The widths that an allocation allows, whatever the scores.

    Args:
        limits: in place of the allocation's own.
    """
    may_lose = may_lose_units(graph, strategy_of(allocation), scored)
    return WidthGrid.of(graph, limits or limits_of(allocation), may_lose)


def slow_groups(graph: ChannelGraph, keep: Keep, allocation: Allocation) -> list[str]:
    """The groups that `round_to: auto` has left with a width that is not worth its time; see `finer`."""
    if allocation.round_to != AUTO:
        return []
    allowed, kept = allowed_widths(graph, allocation, graph.by_id), keep.widths(graph)
    return [group.id for group in graph.prunable if kept[group.id] not in allowed[group.id]]
