"""How long a pruned model takes, predicted from its widths: a sum over its layers, fitted to models that were timed.

    time(keep) = c + sum over layers of  a * work + b * outputs        (relative to the dense model's time)

`work` is the layer's FLOPs, at its own widths or at these rounded up to whole blocks of 16 channels, as vectorised
kernels count; `outputs` is what it writes to memory. The time of a layer on its own, from a table, says less: what a
runtime fuses, and what the caches still hold from the layer before, is seen in whole models only. There are more layers
than a sum can tell apart, so every number is drawn towards what all layers of its kind have in common.

On one thread of a CPU, models that the fit has not seen lie 1.7 to 2.8 % (median) off it, and 95 of 100 within 5.5 to
9.3 %: three networks in two runtimes, `analysis/benchmarks/predicted_time.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from autoprune.engine.allocation.fast_widths import kind_of
from autoprune.engine.cost import padded_rows
from autoprune.engine.graph import ChannelGraph, Floats

#: Channels are counted alone, or in whole blocks of 16: one float32 vector of AVX-512.
COUNTED = ((1,), (16,), (1, 16))
#: How firmly a layer's numbers are held at their kind's, as standard errors of a model's time.
FIRMNESS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Which of these fits best is found by leaving out one part of so many after the other.
PARTS = 5
#: A timing that lies this many median errors off is left out: something else ran meanwhile.
OUTLIER = 5.0


@dataclass(frozen=True, eq=False)
class PredictedTime:
    """Time of pruned models relative to the dense one's.

    Fields:
        blocks: how channels are counted, a term of every layer for each.
        weights: the share of the dense model's time that each term has, shape (terms + 1,); the last is the constant.
        median, most: relative errors of models that a fit had not seen: the median, and what 95 % stay within; without
            timings that are left out.
    """

    graph: ChannelGraph
    blocks: tuple[int, ...]
    weights: Floats
    median: float
    most: float

    #: What `to_arrays` gives.
    ARRAYS = ("blocks", "weights", "errors")

    def ratio(self, counts: NDArray[np.int64]) -> float:
        """Of one model, by the units that it keeps, shape (prunable groups,)."""
        return float(self.ratios(counts[None])[0])

    def ratios(self, counts: NDArray[np.int64]) -> Floats:
        """Of several, shape (n,), of `counts` (n, prunable groups)."""
        found: Floats = _terms(self.graph, counts, self.blocks) @ self.weights
        return found

    def to_arrays(self) -> dict[str, Floats]:
        """What a file holds of it; `of_arrays` is the inverse."""
        values = (np.array(self.blocks, dtype=np.float64), self.weights, np.array([self.median, self.most]))
        return dict(zip(self.ARRAYS, values, strict=True))

    @classmethod
    def of_arrays(cls, graph: ChannelGraph, arrays: dict[str, Floats]) -> PredictedTime:
        """The prediction for a graph that a file holds."""
        median, most = arrays["errors"].tolist()
        return cls(graph, tuple(int(block) for block in arrays["blocks"]), arrays["weights"], median, most)


def fit_time(graph: ChannelGraph, counts: ArrayLike, ratios: ArrayLike) -> PredictedTime:
    """The prediction that fits best to models that were timed.

    Args:
        counts: units that each keeps, shape (n, prunable groups).
        ratios: time of each relative to the dense model's, shape (n,).
    """
    # The dense model has exactly its own time, which no timing has to say.
    widths = np.vstack([np.asarray(counts, dtype=np.int64), graph.sizes])
    times = np.append(np.asarray(ratios, dtype=np.float64), 1.0)
    options = [(blocks, firmness) for blocks in COUNTED for firmness in FIRMNESS]
    errors = {option: _errors_unseen(graph, widths, times, *option) for option in options}
    best = min(options, key=lambda option: float(errors[option].mean()))
    seen = errors[best] <= OUTLIER * np.median(errors[best])
    unseen = _errors_unseen(graph, widths[seen], times[seen], *best)
    weights = _fitted(_terms(graph, widths[seen], best[0]), times[seen], _kinds(graph, best[0]), best[1])
    return PredictedTime(graph, best[0], weights, float(np.median(unseen)), float(np.quantile(unseen, 0.95)))


def _errors_unseen(
    graph: ChannelGraph, widths: NDArray[np.int64], times: Floats, blocks: tuple[int, ...], firmness: float
) -> Floats:
    """The relative error of every model by a fit to the other parts, shape (n,)."""
    terms, kinds = _terms(graph, widths, blocks), _kinds(graph, blocks)
    part = np.arange(len(times)) % PARTS
    errors = np.empty(len(times))
    for left_out in range(PARTS):
        here = part == left_out
        weights = _fitted(terms[~here], times[~here], kinds, firmness)
        errors[here] = np.abs(terms[here] @ weights / times[here] - 1)
    return errors


def _fitted(terms: Floats, times: Floats, kinds: NDArray[np.int64], firmness: float) -> Floats:
    """Weights that are not negative, by the least squares of relative errors.

    Args:
        kinds: which kind each term is of, shape (terms,).
    """
    relative = terms / times[:, None]
    members = kinds[:, None] == np.arange(kinds.max() + 1)
    of_kinds, _ = nnls(relative @ members, np.ones(len(times)))
    common = of_kinds[kinds]  # every term's weight if all of a kind have the same
    held = firmness / np.maximum(common, 1e-3 / len(common))
    rows = np.vstack([relative, np.diag(held)])
    weights, _ = nnls(rows, np.concatenate([np.ones(len(times)), held * common]), maxiter=50 * rows.shape[1])
    found: Floats = weights
    return found


@dataclass(frozen=True, eq=False)
class _Layers:
    """The operations of a graph: rows of their widths, padded with the row of ones behind the last; dense totals."""

    dims: NDArray[np.intp]
    flops: Floats
    out_dims: NDArray[np.intp]
    activations: Floats

    def work(self, widths: Floats, block: int) -> Floats:
        """FLOPs of each, shape (n, operations), its channels counted in whole blocks."""
        found: Floats = _products(np.ceil(widths / block) * block, self.dims) * self.flops
        return found

    def outputs(self, widths: Floats) -> Floats:
        """Elements that each writes, shape (n, operations)."""
        found: Floats = _products(widths, self.out_dims) * self.activations
        return found


@lru_cache(maxsize=64)
def _layers_of(graph: ChannelGraph) -> _Layers:
    return _Layers(
        dims=padded_rows([op.dims for op in graph.ops], len(graph.widths.fixed)),
        flops=np.array([op.flops for op in graph.ops], dtype=np.float64),
        out_dims=padded_rows([op.out_dims for op in graph.ops], len(graph.widths.fixed)),
        activations=np.array([op.activations for op in graph.ops], dtype=np.float64),
    )


def _products(widths: Floats, rows: NDArray[np.intp]) -> Floats:
    """The product of each operation's widths, shape (n, operations)."""
    padded = np.concatenate([widths, np.ones((len(widths), 1))], axis=1)
    found: Floats = padded[:, rows].prod(axis=2)
    return found


def _terms(graph: ChannelGraph, counts: NDArray[np.int64], blocks: tuple[int, ...]) -> Floats:
    """Work and outputs of every layer beside the dense model's whole work and outputs, and 1: (n, terms + 1)."""
    layers, both = _layers_of(graph), np.vstack([counts, graph.sizes])
    widths = graph.widths.fixed + both @ graph.widths.per_unit.T
    columns = [layers.work(widths, block) for block in blocks] + [layers.outputs(widths)]
    shares = [column / column[-1].sum() for column in columns]
    return np.hstack([*shares, np.ones((len(widths), 1))])[:-1]


def _kinds(graph: ChannelGraph, blocks: tuple[int, ...]) -> NDArray[np.int64]:
    """Layers that are alike have the same number, in every kind of term another one: shape (terms + 1,)."""
    names = [(which, kind_of(op)) for which in range(len(blocks) + 1) for op in graph.ops]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([*(numbers[name] for name in names), len(numbers)])
