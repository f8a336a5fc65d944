"""What a model costs as a function of kept channels: arithmetic on the graph, exact, no forward pass.

FLOPs follow torch's `FlopCounterMode`: one multiply-add is 2 FLOPs, and only matrix-multiply-like operations count
(papers' "FLOPs" are mostly multiply-adds, half of ours). Targets and objectives are ratios, where both agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.engine.graph import ChannelGraph, Floats
from autoprune.engine.keep import Keep


@dataclass(frozen=True)
class Cost:
    """FLOPs and activations (output elements of convolutions and matrix products) for the traced batch; parameters."""

    flops: int
    params: int
    activations: int

    def ratios(self, dense: Cost) -> dict[str, float]:
        """Relative to the dense model's cost; 1.0 where the dense model costs nothing."""
        pairs = {name: (getattr(self, name), getattr(dense, name)) for name in ("flops", "params", "activations")}
        return {name: part / whole if whole else 1.0 for name, (part, whole) in pairs.items()}


@dataclass(frozen=True, eq=False)
class _Terms:
    """Cost = weights.T @ (product over columns of widths[rows]).

    Shapes: rows (terms, factors) with unused factors pointing at a constant 1; weights (terms, 3).
    """

    rows: NDArray[np.intp]
    weights: Floats


def cost(graph: ChannelGraph, keep: Keep) -> Cost:
    """The cost of the model cut to `keep`; exact below 2**53."""
    return cost_of_counts(graph, keep.counts(graph))


def cost_of_counts(graph: ChannelGraph, counts: NDArray[Any]) -> Cost:
    """The cost when `counts` (prunable groups,) units are kept: which ones does not matter."""
    flops, params, activations = costs_of_counts(graph, counts[None])[0]
    return Cost(int(flops), int(params), int(activations))


def costs_of_counts(graph: ChannelGraph, counts: NDArray[Any]) -> Floats:
    """FLOPs, parameters and activations, shape (n, 3), of every row of `counts` (n, prunable groups)."""
    terms = _cost_terms(graph)
    widths = graph.widths.fixed + counts @ graph.widths.per_unit.T
    widths = np.concatenate([widths, np.ones((len(widths), 1))], axis=1)
    costs: Floats = widths[:, terms.rows].prod(axis=2) @ terms.weights
    return costs


def flops_by_layer(graph: ChannelGraph, keep: Keep) -> dict[str, int]:
    """FLOPs per operation name; operations that share a layer are added up."""
    widths = graph.widths.fixed + graph.widths.per_unit @ keep.counts(graph)
    result: dict[str, int] = {}
    for op in graph.ops:
        result[op.name] = result.get(op.name, 0) + int(op.flops * widths[list(op.dims)].prod())
    return result


@lru_cache(maxsize=64)
def _cost_terms(graph: ChannelGraph) -> _Terms:
    table = [(op.dims, 0, op.flops) for op in graph.ops]
    table += [(rows, 1, entries) for entries, rows in graph.tensors.values()]
    table += [(op.out_dims, 2, op.activations) for op in graph.ops]
    merged: dict[tuple[int, ...], list[float]] = {}
    for dims, column, weight in table:  # products of widths occur several times: count each once
        merged.setdefault(tuple(sorted(dims)), [0.0, 0.0, 0.0])[column] += weight
    one = len(graph.widths.fixed)
    return _Terms(padded_rows(merged, one), np.array(list(merged.values())).reshape(-1, 3))


def padded_rows(keys: Iterable[tuple[int, ...]], fill: int) -> NDArray[np.intp]:
    """Rows of numbers of unequal length as one array, what is missing filled with `fill`."""
    rows = list(keys)
    factors = max((len(row) for row in rows), default=0)
    return np.array([row + (fill,) * (factors - len(row)) for row in rows], dtype=np.intp).reshape(len(rows), factors)
