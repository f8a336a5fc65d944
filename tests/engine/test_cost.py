"""Costs by hand arithmetic."""

from __future__ import annotations

import numpy as np
from nets import Chain, image

from autoprune.engine.cost import Cost, cost, costs_of_counts, flops_by_layer
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace

GRAPH = trace(Chain(7, 11), image())


def test_the_cost_of_a_chain_by_hand() -> None:
    keep = Keep.of({"first.0": range(5), "second.0": np.arange(3)})
    # (2, 3, 9, 9) -> 7x7 pixels of 5 channels -> 5x5 pixels of 3 -> 2x2 pixels of them -> 5 logits; 2 FLOPs a product
    convolutions = 2 * 2 * (49 * 5 * 3 * 9 + 25 * 3 * 5 * 9)
    linear = 2 * 2 * 12 * 5

    found = cost(GRAPH, keep)

    assert convolutions + linear == found.flops
    assert 5 * 27 + 2 * 5 + 3 * 45 + 2 * 3 + 12 * 5 + 5 == found.params
    assert 2 * (49 * 5 + 25 * 3 + 5) == found.activations


def test_flops_by_layer_are_those_of_each_and_add_up() -> None:
    keep = Keep.of({"first.0": range(5), "second.0": np.arange(3)})

    found = flops_by_layer(GRAPH, keep)

    assert found == {"first.0": 2 * 2 * 49 * 5 * 27, "second.0": 2 * 2 * 25 * 3 * 45, "head": 2 * 2 * 12 * 5}
    assert sum(found.values()) == cost(GRAPH, keep).flops


def test_many_candidates_at_once_cost_what_each_costs_alone() -> None:
    counts = np.array([[7, 11], [5, 3], [1, 1]])

    rows = costs_of_counts(GRAPH, counts)

    for row, (first, second) in zip(rows.tolist(), counts.tolist(), strict=True):
        alone = cost(GRAPH, Keep.of({"first.0": range(first), "second.0": range(second)}))
        assert row == [alone.flops, alone.params, alone.activations]


def test_a_ratio_to_nothing_is_one() -> None:
    assert Cost(3, 5, 0).ratios(Cost(6, 20, 0)) == {"flops": 0.5, "params": 0.25, "activations": 1.0}
