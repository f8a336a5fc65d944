"""Keys of `ratios` (group ids, stages, patterns) as a pruning weight per group."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from autoprune.engine.graph import ChannelGraph, Group
from autoprune.errors import InputError


def weights_by_key(graph: ChannelGraph, ratios: Mapping[str, float], name: str = "ratios") -> dict[str, float]:
    """The weight of each prunable group; groups that no key matches have 0.

    Args:
        name: of the mapping in an allocation.

    Raises:
        InputError: a key matches no group.
    """
    for key in ratios:
        if not any(_matches_group(key, group) for group in graph.prunable):
            stages = sorted({f"stage{group.stage}" for group in graph.prunable})
            allowed = ", ".join([*stages, *graph.by_id]) + ", or a pattern such as layer1.*"
            raise InputError(f"{key!r} matches no prunable group", where=f"allocation.{name}", allowed=allowed)
    return {group.id: _weight_of_group(group, ratios) for group in graph.prunable}


def _names_of_group(group: Group) -> tuple[str, ...]:
    """What a key may call a group: its id, the layer that it was before that layer became two, or its stage."""
    layer = group.id.removesuffix(".mix").removesuffix(".basis")
    return group.id, layer, f"stage{group.stage}"


def _matches_group(key: str, group: Group) -> bool:
    return any(fnmatchcase(name, key) for name in _names_of_group(group)[:2]) or key in _names_of_group(group)


def _weight_of_group(group: Group, ratios: Mapping[str, float]) -> float:
    for key in _names_of_group(group):
        if key in ratios:
            return ratios[key]
    return next((ratio for key, ratio in ratios.items() if _matches_group(key, group)), 0.0)
