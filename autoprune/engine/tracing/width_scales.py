"""Numbers that a model's code computes from its widths, attention's 1 / sqrt(head width) above all.

A cut would change them, and with them what the channels that stay compute. Where such a number multiplies what a layer
has just put out, the cut takes the change back in that layer's weights, so that attention keeps its temperature;
elsewhere the channels must stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable

import numpy as np

from autoprune.engine.graph import Ints, Scale
from autoprune.engine.labels.blocks import Block, project
from autoprune.engine.labels.evidence import CallKey
from autoprune.engine.tracing.labelled_run import LabelledRun

CHANGED = "the model's code computes with its width"
_TIMES, _OVER = "mul with a number", "div with a number"


class ScaleError(Exception):
    """A number changes with the widths in a way that no weight can make up for."""


def changed_scales(before: LabelledRun, after: LabelledRun, unit_of_label: Callable[[], Ints]) -> tuple[Scale, ...]:
    """What surgery has to take back, from a run of the dense model and one of a cut copy.

    Args:
        before: of the dense model.
        after: of a copy that has lost channels.
        unit_of_label: gives the unit of every label of `before`; asked only where a number has changed.

    Raises:
        ScaleError: the change cannot be taken back.
    """
    was, now = before.evidence.numbers, after.evidence.numbers
    changed = [key for key, numbers in was.items() if now.get(key) != numbers]
    found: dict[tuple[str, int, bytes], Scale] = {}
    for key in changed:
        block, power, width = _scaled_block(key, before, after)
        _check_uses(before, block[1], changed)
        units = unit_of_label()[width]
        for tensor, dim, entries in _labelled_places(before, block[1]):
            found[tensor, dim, entries.tobytes()] = Scale(tensor, dim, entries, units, power)
    return tuple(found.values())


def _scaled_block(key: CallKey, before: LabelledRun, after: LabelledRun) -> tuple[Block, float, Ints]:
    """What the call scales, by which power of which width: the labels along that width."""
    blocks, cut_blocks = _labels_used(before, key), _labels_used(after, key)
    old, new = before.evidence.numbers[key], after.evidence.numbers.get(key, ())
    if key[0] not in (_TIMES, _OVER) or len(old) != 1 or len(new) != 1 or not all((*old, *new)):
        raise ScaleError(f"{CHANGED} in {key[0]!r}")
    factor = new[0] / old[0] if key[0] == _TIMES else old[0] / new[0]
    for block in blocks:
        left = next((labels.shape for dims, labels in cut_blocks if dims == block[0]), (1,) * len(block[0]))
        for axis, dim in enumerate(block[0]):
            power = _power_of_ratio(factor, left[axis] / block[1].shape[axis])  # a lone channel has no label
            if power is not None:
                return block, power, project(block, dim)
    raise ScaleError(f"{CHANGED} in {key[0]!r}")


def _labels_used(run: LabelledRun, key: CallKey) -> list[Block]:
    """The labels of what the call scales, if it comes straight out of a layer."""
    return next((blocks for other, blocks in run.evidence.layer_uses if other == key), [])


def _power_of_ratio(factor: float, ratio: float) -> float | None:
    """p, a multiple of a quarter, with factor = ratio ** p; None if there is none."""
    if ratio == 1 or factor <= 0:
        return None
    power = math.log(factor) / math.log(ratio)
    quarter = round(4 * power) / 4
    return quarter if quarter and abs(power - quarter) < 1e-6 else None


def _check_uses(before: LabelledRun, labels: Ints, changed: Container[CallKey]) -> None:
    for key, blocks in before.evidence.layer_uses:
        if key not in changed and any(np.isin(labels, other).any() for _, other in blocks):
            raise ScaleError(f"{CHANGED}, and what is scaled is used unscaled by {key[0]!r}")


def _labelled_places(run: LabelledRun, labels: Ints) -> Iterable[tuple[str, int, Ints]]:
    """(tensor, dimension, entries) that have these labels, biases that are added to them included."""
    alike = [labels] + [bias[np.isin(weight, labels)] for weight, bias in run.evidence.bias_pairs]
    starts = [slot.first for slot in run.slots]
    for group in (labels[labels < starts[-1] + run.slots[-1].size] for labels in alike):
        for place in np.unique(np.searchsorted(starts, group, side="right") - 1):
            slot = run.slots[place]
            own = np.unique(group[(group >= slot.first) & (group < slot.first + slot.size)])
            yield slot.tensor, slot.dim, own - slot.first
