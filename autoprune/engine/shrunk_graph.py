"""The graph of a model that has been cut, from the graph it had before: no second trace, no torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoprune.engine.graph import ChannelGraph, CrossChannelCall, Ints, Scale, Slot, with_fixed
from autoprune.engine.keep import Keep


def shrink(graph: ChannelGraph, keep: Keep) -> ChannelGraph:
    """The graph of `prune(model, graph, keep)`, for that model's next cut. Groups keep their ids.

    Raises:
        InputError: `keep` does not fit the graph.
    """
    stays = keep.units(graph)
    number = with_fixed(np.where(stays, np.cumsum(stays) - 1, -1), -1)  # of the units that stay
    after = _After(graph, with_fixed(stays, True), number)
    return replace(
        graph,
        groups=tuple(replace(group, units=number[group.units[stays[group.units]]]) for group in graph.groups),
        slots=tuple(after.slot(slot) for slot in graph.slots),
        cross_channel=tuple(after.call(call) for call in graph.cross_channel),
        attributes=tuple(replace(a, parts=tuple(after.units(part) for part in a.parts)) for a in graph.attributes),
        scales=tuple(after.scale(scale) for scale in graph.scales),
        unit_count=int(stays.sum()),
    )


def compose(graph: ChannelGraph, first: Keep, second: Keep) -> Keep:
    """The one cut that does what `first` and then `second`, on the graph shrunk by `first`, do."""
    before = dict(first.kept)
    after = {
        group: [before.get(group, range(graph.by_id[group].size))[i] for i in positions]
        for group, positions in second.kept
    }
    return Keep.of({**before, **after})


class _After:
    """What is left of the parts of a graph, in the new units' numbers.

    `stays` and `number` are tables by unit, shape (units + 1,): whether it stays, and its number then.
    """

    def __init__(self, graph: ChannelGraph, stays: np.ndarray, number: Ints) -> None:
        self.graph, self.stays, self.number = graph, stays, number

    def units(self, units: Ints) -> Ints:
        """Of an array of units: those that stay; rows that lose all go, the others lose equally many."""
        kept = self.stays[units]
        rows = int(kept.reshape(len(units), -1).any(1).sum())
        flat: Ints = self.number[units[kept]]
        return flat if units.ndim == 1 else flat.reshape(rows, *units.shape[1:-1], -1)

    def slot(self, slot: Slot) -> Slot:
        return replace(slot, units=self.units(slot.units))

    def call(self, call: CrossChannelCall) -> CrossChannelCall:
        return replace(call, blocks=tuple((dims, self.units(units)) for dims, units in call.blocks))

    def scale(self, scale: Scale) -> Scale:
        slot = self.graph.slot(scale.tensor, scale.dim)
        entries = scale.entries
        if slot is not None:
            stays = self.stays[slot.units]
            entries = (np.cumsum(stays) - 1)[entries[stays[entries]]]
        return replace(scale, entries=entries, units=self.units(scale.units))
