"""A few coefficients over features of the groups -> a pruning weight per group; no torch.

A search over a share per group grows with the network; this has four numbers for every one. Features are standardised
over the prunable groups, so that a coefficient means the same everywhere: a group one standard deviation above the mean
is pruned exp(coefficient) times as much as an average group.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoprune.engine.allocation.strategies import Features, Ratios, allocation_of, limits_of, strategy_of
from autoprune.engine.cost import costs_of_counts
from autoprune.engine.graph import ChannelGraph, Floats
from autoprune.errors import InputError
from autoprune.recipe import Allocation

#: The smallest weight: however strong the coefficients, every group may be pruned, and the target stays in reach.
LEAST = 1e-6

#: A rise of the loss below this share of the largest one is noise and counts as this share.
NOISE = 0.01


def as_ratios(graph: ChannelGraph, allocation: Allocation, rises: Mapping[str, float]) -> Allocation:
    """An allocation by `features` as one by `ratios`, a weight per group of this graph; any other as it is.

    Args:
        rises: see `feature_weights`.
    """
    strategy = strategy_of(allocation)
    if not isinstance(strategy, Features):
        return allocation
    return allocation_of(Ratios(ratios=feature_weights(graph, strategy, rises)), limits_of(allocation))


def needs_rises(allocation: Allocation) -> bool:
    """Whether the rises of the loss must be measured before `as_ratios` can use them."""
    strategy = strategy_of(allocation)
    return isinstance(strategy, Features) and strategy.sensitivity != 0


def feature_weights(
    graph: ChannelGraph, coefficients: Features, rises: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Prunable group id -> exp(sum of coefficient * feature), divided by the largest: a weight in (0, 1].

    Args:
        rises: group id -> rise of the loss when half of the group is silenced (`trial/sensitivity.py`), measured on the
            dense model. A group that it does not have, such as the rank of a layer that a method has decomposed, gets
            the feature of an average group: it is pruned no more and no less for its sensitivity.

    Raises:
        InputError: the coefficient of `sensitivity` is not 0 and `rises` is not given.
    """
    if coefficients.sensitivity and rises is None:
        raise InputError(
            "sensitivity is measured on data, and there is none here",
            where="allocation.sensitivity",
            allowed="0, or a trial on a task",
        )
    found = features(graph, rises or {})
    terms = (coefficient * found[name] for name, coefficient in vars(coefficients).items())
    total = sum(terms, np.zeros(len(graph.prunable)))
    relative = np.maximum(np.exp(total - total.max(initial=-np.inf)), LEAST)
    return dict(zip(graph.by_id, relative.tolist(), strict=True))


def features(graph: ChannelGraph, rises: Mapping[str, float]) -> dict[str, Floats]:
    """Name -> one number per prunable group, mean 0 and standard deviation 1; all 0 if groups do not differ.

    `depth`: place in the forward pass. `flops`: logarithm of the FLOPs that go when the whole group goes. `stream`:
    logarithm of the number of layers that write to the group: one inside a block, many for a residual stream.
    `sensitivity`: logarithm of the rise of the loss.
    """
    raw = {
        "depth": np.arange(len(graph.prunable), dtype=np.float64),
        "flops": np.log(_flops_saved(graph)),
        "stream": np.log(_count_writers(graph)),
        "sensitivity": _log_rises(graph, rises),
    }
    return {name: _standardise(values) for name, values in raw.items()}


def _flops_saved(graph: ChannelGraph) -> Floats:
    """The FLOPs that go when each group goes; one that saves nothing counts like the one that saves least."""
    all_but_one = np.where(np.eye(len(graph.sizes), dtype=bool), 0, graph.sizes)
    costs = costs_of_counts(graph, np.vstack([graph.sizes, all_but_one]))[:, 0]
    saved = costs[0] - costs[1:]
    least: float = saved[saved > 0].min(initial=costs[0] or 1.0)
    return np.where(saved > 0, saved, least)


def _count_writers(graph: ChannelGraph) -> Floats:
    """How many layers write to each group: the first, and layers that read channels of other groups.

    A depthwise layer has no inputs of its own, and a gate as in squeeze-and-excitation writes one number per channel
    where others write a map: neither makes a stream of what it acts on. A group's id is the name of the first layer,
    with a number behind `#` if that layer has several groups.
    """
    reads = {slot.tensor for slot in graph.slots if slot.role == "in"}
    gates = _without_places(graph)
    first = [group.id.partition("#")[0] for group in graph.prunable]
    later: list[set[str]] = [set() for _ in first]
    for slot in graph.slots:
        if slot.role == "out" and slot.tensor in reads:
            for column in set(graph.column_of_unit[slot.units].tolist()) - {-1}:
                later[column].add(slot.layer)
    made = zip(first, later, strict=True)
    return np.array([1.0 + len(more - {one} - (gates if one not in gates else set())) for one, more in made])


def _without_places(graph: ChannelGraph) -> set[str]:
    """The layers that give one number per channel and image."""
    images = graph.inputs[0].shape[0]
    return {op.name for op in graph.ops} - {op.name for op in graph.ops if op.activations > images}


def _log_rises(graph: ChannelGraph, rises: Mapping[str, float]) -> Floats:
    """NaN where nothing was measured."""
    measured = np.array([rises.get(group.id, np.nan) for group in graph.prunable])
    largest = np.nanmax(measured, initial=0.0)
    return np.log(np.maximum(measured, NOISE * largest)) if largest > 0 else np.zeros(len(measured))


def _standardise(values: Floats) -> Floats:
    """Over the numbers that are there; the others, and all that are equal, become 0."""
    known = values[~np.isnan(values)]
    if len(known) == 0 or np.ptp(known) == 0:
        return np.zeros(len(values))
    return np.where(np.isnan(values), 0.0, (values - known.mean()) / known.std())
