"""Keep: which channels stay. A value: comparable, hashable, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.engine.graph import ChannelGraph
from autoprune.errors import InputError


@dataclass(frozen=True)
class Keep:
    """Per prunable group, the positions of the units that stay, ascending.

    Groups that are left out keep every unit. Make one with `Keep.of`.
    """

    kept: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, kept: Mapping[str, Sequence[int]]) -> Keep:
        """From a mapping group id -> positions, in any order."""
        return cls(
            tuple(sorted((group, tuple(sorted(int(i) for i in positions))) for group, positions in kept.items()))
        )

    @classmethod
    def all(cls) -> Keep:
        """Nothing is pruned."""
        return cls()

    def widths(self, graph: ChannelGraph) -> dict[str, int]:
        """Kept units per prunable group."""
        counts = {group: len(positions) for group, positions in self.kept}
        return {group.id: counts.get(group.id, group.size) for group in graph.prunable}

    def counts(self, graph: ChannelGraph) -> NDArray[np.int64]:
        """Kept units per prunable group, shape (prunable groups,), in the order of `graph.prunable`."""
        counts = graph.sizes.copy()
        for group, positions in self.kept:
            counts[graph.column[group]] = len(positions)
        return counts

    def units(self, graph: ChannelGraph) -> NDArray[np.bool_]:
        """Which units stay, shape (units,).

        Raises:
            InputError: a group that the graph does not have or has frozen, a position out of range or given twice, or
                a group left empty.
        """
        stays = np.ones(graph.unit_count, dtype=bool)
        for group_id, positions in self.kept:
            group = graph.group(group_id)
            stays[group.units] = _kept_positions(group_id, positions, group.size)
        return stays

    def to_dict(self) -> dict[str, list[int]]:
        """Plain data; `Keep.of(keep.to_dict()) == keep`."""
        return {group: list(positions) for group, positions in self.kept}


def _kept_positions(group_id: str, positions: tuple[int, ...], size: int) -> NDArray[np.bool_]:
    kept = np.zeros(size, dtype=bool)
    inside = bool(positions) and min(positions) >= 0 and max(positions) < size
    if inside:
        kept[list(positions)] = True
    if not inside or kept.sum() != len(positions):
        allowed = f"1 to {size} different positions in [0, {size - 1}]"
        raise InputError(f"positions {list(positions)!r:.60}", where=f"keep of group {group_id!r}", allowed=allowed)
    return kept
