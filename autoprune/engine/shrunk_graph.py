"""The graph of a model that has been cut, from the graph it had before: no second trace, no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from autoprune.engine.graph import ChannelGraph, ComputedWeight, CrossChannelCall, Ints, Scale, Slot, with_fixed
from autoprune.engine.keep import Keep


def shrink(graph: ChannelGraph, keep: Keep) -> ChannelGraph:
    """The graph of `prune(model, graph, keep)`, for that model's next cut. Groups keep their ids.

    Raises:
        InputError: `keep` does not fit the graph.
    """
    stays = keep.units(graph)
    number = with_fixed(np.where(stays, np.cumsum(stays) - 1, -1), -1)  # of the units that stay
    renumbered = _Renumbered(graph, with_fixed(stays, True), number)
    return replace(
        graph,
        groups=tuple(replace(group, units=number[group.units[stays[group.units]]]) for group in graph.groups),
        slots=tuple(renumbered.slot(slot) for slot in graph.slots),
        cross_channel=tuple(renumbered.call(call) for call in graph.cross_channel),
        computed_weights=tuple(renumbered.call(call) for call in graph.computed_weights),
        attributes=tuple(replace(a, parts=tuple(renumbered.units(part) for part in a.parts)) for a in graph.attributes),
        scales=tuple(renumbered.scale(scale) for scale in graph.scales),
        unit_count=int(stays.sum()),
    )


def compose(graph: ChannelGraph, first: Keep, second: Keep) -> Keep:
    """One cut that equals two: `first` on the graph, then `second` on the graph shrunk by `first`."""
    before = dict(first.kept)
    after = {
        group: [before.get(group, range(graph.by_id[group].size))[i] for i in positions]
        for group, positions in second.kept
    }
    return Keep.of({**before, **after})


_Call = TypeVar("_Call", CrossChannelCall, ComputedWeight)


class _Renumbered:
    """The parts of a graph after a cut, with the units that stay renumbered.

    `stays` and `number` are tables by unit, shape (units + 1,): whether it stays, and its new number.
    """

    def __init__(self, graph: ChannelGraph, stays: np.ndarray, number: Ints) -> None:
        self.graph, self.stays, self.number = graph, stays, number

    def units(self, units: Ints) -> Ints:
        """The units of an array that stay; rows that lose all their units go, the others lose equally many."""
        kept = self.stays[units]
        rows = int(kept.reshape(len(units), -1).any(1).sum())
        flat: Ints = self.number[units[kept]]
        return flat if units.ndim == 1 else flat.reshape(rows, *units.shape[1:-1], -1)

    def slot(self, slot: Slot) -> Slot:
        return replace(slot, units=self.units(slot.units))

    def call(self, call: _Call) -> _Call:
        return replace(call, blocks=tuple((dims, self.units(units)) for dims, units in call.blocks))

    def scale(self, scale: Scale) -> Scale:
        slot = self.graph.slot(scale.tensor, scale.dim)
        entries = scale.entries
        if slot is not None:
            stays = self.stays[slot.units]
            entries = (np.cumsum(stays) - 1)[entries[stays[entries]]]
        return replace(scale, entries=entries, units=self.units(scale.units))
