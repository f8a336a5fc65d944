"""What a unit of each group saves, by which a global ranking can divide scores: as much as possible is kept per saving.

Which channels to keep under a budget is a knapsack; units in the order of score over what they save is its greedy
solution (Shen et al., "Structural Pruning via Latency-Saliency Knapsack", NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from autoprune.engine.cost import costs_of_counts
from autoprune.engine.graph import ChannelGraph, Floats

#: The least that a unit counts, beside the one that saves most: none is free to keep.
LEAST = 1e-3

#: What models cost, shape (n,), of the units that they keep, shape (n, prunable groups).
CostOf = Callable[[NDArray[np.int64]], Floats]


def saved_per_unit(graph: ChannelGraph, cost_of: CostOf) -> dict[str, float]:
    """Prunable group id -> what a unit saves while half of its group goes from the dense model, beside the largest.

    Half a group, since one unit saves nothing where channels are counted in blocks.
    """
    gone = np.maximum(graph.sizes // 2, 1)
    saved = cost_of(graph.sizes[None]) - cost_of(graph.sizes - np.diag(gone))
    prices = saved / gone
    if not prices.any():
        return {group.id: 1.0 for group in graph.prunable}
    relative = np.maximum(prices / prices.max(), LEAST)
    return {group.id: float(price) for group, price in zip(graph.prunable, relative, strict=True)}


def flops_per_unit(graph: ChannelGraph) -> Mapping[str, float]:
    """The same of FLOPs."""
    return saved_per_unit(graph, lambda counts: costs_of_counts(graph, counts)[:, 0])
