"""Integer labels on tensor dimensions and how they move through reshapes: the arithmetic below the rules. numpy only.

A *block* is `(dims, array)`: the labels of the entries along one or several dimensions of a tensor, jointly, with
`array.shape == tuple(shape[d] for d in dims)`. Label 0 (`FIXED`) marks entries that no unit owns: inputs, padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from autoprune.engine.graph import Ints

FIXED = 0


Block = tuple[tuple[int, ...], Ints]


Segment = tuple[list[int], list[int]]


def segments(before: Sequence[int], after: Sequence[int]) -> list[Segment] | None:
    """Match dimensions of two shapes of equal size: runs of dims of `before` that become runs of dims of `after`.

    Dimensions of size 1 are left out. None if the shapes hold different numbers of entries, or none.
    """
    if math.prod(before) != math.prod(after) or math.prod(before) == 0:
        return None
    left, right = ([d for d, size in enumerate(shape) if size != 1] for shape in (before, after))
    result: list[Segment] = []
    while left or right:
        run: Segment = ([left.pop(0)], [right.pop(0)])
        while (gap := math.prod(before[d] for d in run[0]) - math.prod(after[d] for d in run[1])) != 0:
            source, side = (left, 0) if gap < 0 else (right, 1)
            run[side].append(source.pop(0))
        result.append(run)
    return result


def reshape(block: Block, before: Sequence[int], after: Sequence[int]) -> tuple[Block | None, list[tuple[Ints, Ints]]]:
    """The block after a reshape, and the pairs of label arrays that must be tied.

    Splitting one labelled dimension ties its rows (heads, channel shuffle and groups stay balanced): a cut takes the
    same offset out of every row. None means the labels cannot follow.
    """
    dims, _ = block
    runs = segments(before, after)
    if runs is None or any(before[d] == 1 for d in dims):
        return None, []
    touched = [run for run in runs if set(run[0]) & set(dims)]
    source = [d for run in touched for d in run[0]]
    target = [d for run in touched for d in run[1]]
    moved = spread(block, source, before).reshape([after[d] for d in target])
    out_dims, moved = drop_constant(tuple(target), moved)
    ties = _row_ties(moved) if len(dims) == 1 and len(out_dims) > 1 else []
    return (out_dims, moved), ties


def spread(block: Block, dims: Sequence[int], shape: Sequence[int]) -> Ints:
    """The labels over more dimensions (or the same in another order), copied along the new ones."""
    own, labels = block
    if tuple(dims) == own:
        return labels
    order = [own.index(d) for d in dims if d in own]
    view = [shape[d] if d in own else 1 for d in dims]
    return np.broadcast_to(labels.transpose(order).reshape(view), [shape[d] for d in dims])


def drop_constant(dims: tuple[int, ...], labels: Ints) -> Block:
    """Without the dimensions along which the labels only repeat; at least one dimension is left."""
    axis = 0
    while axis < labels.ndim and labels.ndim > 1:
        first = np.take(labels, [0], axis)
        if (labels == first).all():
            labels, dims = first.squeeze(axis), dims[:axis] + dims[axis + 1 :]
        else:
            axis += 1
    return dims, np.ascontiguousarray(labels)


def project(block: Block, dim: int) -> Ints:
    """The labels along one dimension of a block, from its first row along all others."""
    dims, labels = block
    index = tuple(slice(None) if d == dim else 0 for d in dims)
    return labels[index]


def renumber(blocks: Iterable[Block], mapping: dict[int, int]) -> list[Block]:
    """The blocks with every dimension number replaced; blocks with a dimension outside the mapping are dropped."""
    return [(tuple(mapping[d] for d in dims), labels) for dims, labels in blocks if all(d in mapping for d in dims)]


def _row_ties(labels: Ints) -> list[tuple[Ints, Ints]]:
    axes = range(labels.ndim - 1)
    return [(labels, np.broadcast_to(np.take(labels, [0], axis), labels.shape)) for axis in axes]
