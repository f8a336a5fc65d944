"""Which groups are of equal structure (Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from autoprune.engine.graph import ChannelGraph, Ints, Slot

#: What a slot is to the groups whose units lie along it.
_Part = tuple[str, str, int, int, int]


@lru_cache(maxsize=64)
def isomorphic_classes(graph: ChannelGraph) -> Ints:
    """The number of the class of every prunable group, shape (prunable groups,); classes are numbered as they come.

    Groups are of one class if a unit owns the same in as many tensors: filters of a kernel of this size, inputs of one,
    scales. Widths are no part of that: they differ between the stages of a network whose blocks are alike, and after a
    first cut between all groups.
    """
    parts: dict[int, list[_Part]] = {column: [] for column in range(len(graph.prunable))}
    for slot in graph.slots:
        for column, owned in _entries_per_unit(graph, slot):
            fixed = graph.tensors.get(slot.tensor, (0, ()))[0]
            parts[column].append((slot.role, slot.tensor.rpartition(".")[2], slot.dim, fixed, owned))
    number: dict[tuple[_Part, ...], int] = {}
    return np.array([number.setdefault(tuple(sorted(found)), len(number)) for found in parts.values()], dtype=np.int64)


def _entries_per_unit(graph: ChannelGraph, slot: Slot) -> Iterator[tuple[int, int]]:
    """(column of a prunable group, how many entries of the slot each of its units owns)."""
    columns, entries = np.unique(graph.column_of_unit[slot.units], return_counts=True)
    for column, count in zip(columns.tolist(), entries.tolist(), strict=True):
        if column >= 0:
            yield column, count // int(graph.sizes[column])
