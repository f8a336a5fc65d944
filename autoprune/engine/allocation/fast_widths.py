"""The widths of a group that are worth their time on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.engine.allocation.width_times import PERIOD, WidthTimes
from autoprune.engine.graph import ChannelGraph, Floats, Ints, Op

#: A width is worth its time if it saves at least this share of what its channels are of those of any wider one. Where
#: time goes by blocks of channels it is 0 inside a block; 1 is a layer whose time is in proportion to its channels.
SAVES = 0.25
#: Neighbouring widths of a group are no further apart than this share of its channels: coarser ones cost accuracy.
WIDEST_GAP = 0.25
#: The same in a network without a wider group than so many channels, in which blocks leave few widths: with gaps of a
#: quarter a ResNet-20 on CIFAR-10 loses 1.4 points at half its FLOPs, with gaps of an eighth none.
WIDEST_GAP_IF_NARROW, NARROW = 0.125, 64
#: Kernels work on so many channels at once. Where others are wide, a group of few blocks keeps to whole ones: with gaps
#: of a quarter, half of MobileNet-V3's FLOPs took 0.71 of its time in onnxruntime, with whole blocks 0.59.
BLOCK = 16


def fast_widths(graph: ChannelGraph, times: WidthTimes, channels: Ints) -> list[NDArray[np.bool_]]:
    """Which widths of each prunable group are worth their time, each of shape (dense units + 1,).

    A width of the group is one of all layers that its channels are inputs or outputs of: their times are added up.

    Args:
        channels: per unit, shape (prunable groups,).
    """
    sizes = zip(graph.sizes.tolist(), channels.tolist(), strict=True)
    is_narrow = (graph.sizes * channels).max(initial=0) <= NARROW
    gaps = (WIDEST_GAP_IF_NARROW, 1) if is_narrow else (WIDEST_GAP, BLOCK)
    return [_fast_of_group(graph, column, times, gaps, *size) for column, size in enumerate(sizes)]


def _fast_of_group(
    graph: ChannelGraph, column: int, times: WidthTimes, gaps: tuple[float, int], units: int, channels: int
) -> NDArray[np.bool_]:
    dense = units * channels
    candidates = [width for width in _candidates(times, dense) if width % channels == 0]
    widths = np.array([*candidates, dense])
    fast = worth_their_time(widths, _time_of_group(graph, column, times, widths))
    mask = np.zeros(units + 1, dtype=bool)
    mask[[width // channels for width in without_gaps(fast, *gaps) if width % channels == 0]] = True
    return mask


def without_gaps(widths: Sequence[int], gap: float, block: int = 1) -> list[int]:
    """The widths, and where two are too far apart the multiples of a power of two between them.

    Args:
        widths: ascending, the dense one last.
        gap: the widest, as a share of the dense width; see `WIDEST_GAP`.
        block: the widest, in channels, where that is more.
    """
    widest = max(block, int(gap * widths[-1]))
    step = 2 ** int(np.log2(widest))
    found = set(widths)
    for lower, higher in zip([0, *widths], widths, strict=False):
        if higher - lower > widest:
            found.update(range(step * (lower // step + 1), higher, step))
    return sorted(found)


def _candidates(times: WidthTimes, dense: int) -> list[int]:
    """The measured widths below the dense one; beyond them those that lie as in their last period."""
    measured = {width for curve in times.curves for width in curve.widths}
    last = [width for width in measured if width > max(measured) - PERIOD]
    beyond = {width + shift for width in last for shift in range(PERIOD, dense, PERIOD)}
    return sorted(width for width in measured | beyond if width < dense)


def worth_their_time(widths: Ints, times: Floats) -> list[int]:
    """The widths that save enough beside every wider one that does; the widest always.

    Args:
        widths: ascending.
        times: of each.
    """
    kept: list[int] = []
    for index in reversed(range(len(widths))):
        if all(times[index] <= times[wider] * _most(widths[index] / widths[wider]) for wider in kept):
            kept.append(index)
    return [int(widths[index]) for index in reversed(kept)]


def _most(share: float) -> float:
    """What a width may take of the time of a wider one, whose channels it has a share of."""
    return 1 - SAVES * (1 - share)


def _time_of_group(graph: ChannelGraph, column: int, times: WidthTimes, widths: Ints) -> Floats:
    """What the layers take that the group's channels are inputs or outputs of, by its width, shape (widths,)."""
    batch = graph.inputs[0].shape[0] if graph.inputs and graph.inputs[0].shape else 1
    total = np.zeros(len(widths))
    for op in graph.ops:
        if _touches(graph, op, column):
            total += _time_of_op(op, times, widths, batch)
    return total


def _touches(graph: ChannelGraph, op: Op, column: int) -> bool:
    return bool(graph.widths.per_unit[list(op.dims), column].any())


def _time_of_op(op: Op, times: WidthTimes, widths: Ints, batch: int) -> Floats:
    """Of one layer, with so many channels on both sides."""
    positions, area = max(1.0, op.activations / batch), op.flops / (2 * max(1, op.activations))
    kind = kind_of(op)
    curve = times.curve(kind, positions)
    larger = positions / curve.positions * (1 if kind == "pointwise" else area / curve.area)
    return curve.time(widths) * larger


def kind_of(op: Op) -> str:
    """Which of the measured kinds of layers an operation is like."""
    if len(op.dims) == 1:
        return "depthwise"
    return "pointwise" if op.flops <= 2 * op.activations else "spatial"
