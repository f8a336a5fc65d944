"""Which widths a group may have, and how much of each group a set of widths keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache

import numpy as np

from autoprune.engine.allocation.features import weights as weights_by_features
from autoprune.engine.graph import ChannelGraph, Floats, Group, Ints
from autoprune.errors import InputError
from autoprune.recipe import Allocation


def allowed_widths(graph: ChannelGraph, how: Allocation, scored: Mapping[str, object]) -> dict[str, Ints]:
    """The widths that each prunable group may have, in units, ascending, the dense one last.

    Args:
        scored: holds the groups that may be pruned as keys.
    """
    widths = _reach(graph, how, scored)
    rows = zip(graph.prunable, widths.lowest, widths.dense, widths.step, strict=True)
    return {group.id: np.append(np.arange(lowest, dense, step), dense) for group, lowest, dense, step in rows}


def shares(graph: ChannelGraph, how: Allocation) -> dict[str, float]:
    """The weight of each prunable group under `Allocation(name="ratios")`; unlisted groups have 0.

    Raises:
        InputError: a key of `how.ratios` that matches no group.
    """
    for key in how.ratios:
        if not any(_matches(key, group) for group in graph.prunable):
            stages = sorted({f"stage{group.stage}" for group in graph.prunable})
            allowed = ", ".join([*stages, *graph.by_id]) + ", or a pattern such as layer1.*"
            raise InputError(f"{key!r} matches no prunable group", where="allocation.ratios", allowed=allowed)
    return {group.id: _share(group, how.ratios) for group in graph.prunable}


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
class _Widths:
    """The widths that each prunable group may have, in units: `dense`, and multiples of `step` from `lowest` up.

    All of shape (prunable groups,). A group that is not pruned has no other width than `lowest`, its dense one.
    """

    dense: Ints
    lowest: Ints
    step: Ints

    def below(self, kept: Ints) -> Ints:
        """The next lower width of every group; the lowest has none and stays."""
        lower: Ints = np.maximum(self.lowest, (kept - 1) // self.step * self.step)
        return lower

    def above(self, kept: Ints) -> Ints:
        """The next higher width of every group; the dense one has none and stays."""
        higher: Ints = np.minimum(self.dense, (kept // self.step + 1) * self.step)
        return higher


def _widths(graph: ChannelGraph, how: Allocation, weights: Floats) -> _Widths:
    """`how` counts channels, the graph counts units: here one becomes the other."""
    channels = np.array([channels_per_unit(graph)[group.id] for group in graph.prunable], dtype=np.int64)
    step = how.round_to // np.gcd(channels, how.round_to)
    by_ratio = np.ceil(graph.sizes * (1 - how.max_ratio) - 1e-9).astype(np.int64)
    floor = np.maximum(np.maximum(by_ratio, -(-how.min_channels // channels)), 1)
    lowest = np.minimum(graph.sizes, -(-floor // step) * step)
    return _Widths(graph.sizes, np.where(weights > 0, lowest, graph.sizes), step)


def _reach(graph: ChannelGraph, how: Allocation, scored: Mapping[str, object]) -> _Widths:
    """The widths that `how` allows. By `features` every group may go: how eagerly does not matter here."""
    how = replace(how, name="uniform") if how.name == "features" else how
    return _widths(graph, how, _weights(graph, how, scored))


def _weights(graph: ChannelGraph, how: Allocation, scored: Mapping[str, object]) -> Floats:
    """How eagerly each group is pruned, shape (prunable groups,): 1 or as said; 0 where it stays whole."""
    match how.name:
        case "ratios":
            given = shares(graph, how)
        case "features":
            given = weights_by_features(graph, how)
        case _:
            given = dict.fromkeys(graph.by_id, 1.0)
    return np.array([given[group.id] if group.id in scored else 0.0 for group in graph.prunable])


def _names(group: Group) -> tuple[str, ...]:
    """What a ratio key may call a group: its id, the layer it was before that became two, or its stage."""
    layer = group.id.removesuffix(".mix").removesuffix(".basis")
    return group.id, layer, f"stage{group.stage}"


def _matches(key: str, group: Group) -> bool:
    return any(fnmatchcase(name, key) for name in _names(group)[:2]) or key in _names(group)


def _share(group: Group, ratios: Mapping[str, float]) -> float:
    for key in _names(group):
        if key in ratios:
            return ratios[key]
    return next((ratio for key, ratio in ratios.items() if _matches(key, group)), 0.0)
