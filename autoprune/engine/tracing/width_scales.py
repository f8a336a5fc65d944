"""Numbers that a model's code computes from its widths, attention's 1 / sqrt(head width) above all.

A cut would change them, and with them what the channels that stay compute. Where such a number multiplies what a layer
has just put out, or a weight (equalised learning rates), the cut takes the change back in weights, so that attention
keeps its temperature; elsewhere the channels must stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoprune.engine.graph import Ints, Scale
from autoprune.engine.labels.blocks import Block, project
from autoprune.engine.labels.evidence import CallKey, Evidence
from autoprune.engine.tracing.labelled_run import LabelledRun

CHANGED = "the model's code computes with its width"
_TIMES, _OVER = "mul with a number", "div with a number"


class ScaleError(Exception):
    """A number changes with the widths in a way that no weight can make up for."""


class _Source(NamedTuple):
    """The labels of something that can be scaled back, and the calls that work with it, with its labels there.

    Biases that have been added to what comes out of a layer are scaled back, too. A product of a layer's outputs with
    themselves has them two `times`.
    """

    blocks: list[Block]
    uses: Sequence[tuple[CallKey, list[Block]]]
    out_of_layer: bool
    times: int = 1


@dataclass(frozen=True, eq=False)
class _Scaled:
    """What a call multiplies by a power of a width.

    `labels` are those of the entries to scale back, `width` those along the width.
    """

    labels: Ints
    width: Ints
    power: float
    source: _Source


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
        scaled = _scaled_by(key, before, after)
        _check_uses(scaled, changed)
        units = unit_of_label()[scaled.width]
        for tensor, dim, entries in _labelled_places(before, scaled):
            found[tensor, dim, entries.tobytes()] = Scale(tensor, dim, entries, units, scaled.power)
    return tuple(found.values())


def _scaled_by(key: CallKey, before: LabelledRun, after: LabelledRun) -> _Scaled:
    old, new = before.evidence.numbers[key], after.evidence.numbers.get(key, ())
    if key[0] not in (_TIMES, _OVER) or len(old) != 1 or len(new) != 1 or not all((*old, *new)):
        raise ScaleError(f"{CHANGED} in {key[0]!r}")
    factor = new[0] / old[0] if key[0] == _TIMES else old[0] / new[0]
    for source, source_after in zip(_sources(before.evidence, key), _sources(after.evidence, key), strict=True):
        cut_blocks = dict(source_after.blocks)
        for dims, labels in source.blocks:
            left = cut_blocks[dims].shape if dims in cut_blocks else (1,) * len(dims)  # a lone channel has no label
            widths = [(project((dims, labels), dim), left[axis]) for axis, dim in enumerate(dims)]
            for width, count in [*widths, *(_widths_summed(labels, before, after) if source.out_of_layer else ())]:
                power = _power_of_ratio(factor, count / width.size)
                if power is not None:
                    return _Scaled(labels, width, power / source.times, source)
    raise ScaleError(f"{CHANGED} in {key[0]!r}")


def _sources(evidence: Evidence, key: CallKey) -> Iterator[_Source]:
    """What a call may scale: what comes straight out of a layer, a product of that, a weight."""
    outputs, weights = evidence.layer_uses, evidence.weight_uses
    yield _Source(_blocks_used(outputs, key), outputs, out_of_layer=True)
    product, blocks, times = next(((p, b, n) for use, p, b, n in evidence.product_uses if use == key), (key, [], 1))
    uses = [*outputs, *((use, b) for use, other, b, _ in evidence.product_uses if other == product)]
    yield _Source(blocks, [(use, b) for use, b in uses if use != product], out_of_layer=True, times=times)
    yield _Source(_blocks_used(weights, key), weights, out_of_layer=False)


def _blocks_used(uses: Iterable[tuple[CallKey, list[Block]]], key: CallKey) -> list[Block]:
    return next((blocks for other, blocks in uses if other == key), [])


def _widths_summed(labels: Ints, before: LabelledRun, after: LabelledRun) -> Iterator[tuple[Ints, int]]:
    """The inputs of the layers that put out these labels, and how many the cut copy has of them."""
    for op, cut in zip(before.evidence.ops, after.evidence.ops, strict=False):
        made = op.inputs is not None and any(np.array_equal(out.ravel(), labels.ravel()) for out in op.out_dims)
        if made and op.inputs is not None:
            yield op.inputs.ravel(), 1 if cut.inputs is None else cut.inputs.size


def _power_of_ratio(factor: float, ratio: float) -> float | None:
    """p, a multiple of a quarter, with factor = ratio ** p; None if there is none."""
    if ratio == 1 or not 0 < factor < math.inf:  # nor NaN
        return None
    power = math.log(factor) / math.log(ratio)
    quarter = round(4 * power) / 4
    return quarter if quarter and abs(factor / ratio**quarter - 1) < 1e-6 else None  # computed in float32, perhaps


def _check_uses(scaled: _Scaled, changed: Container[CallKey]) -> None:
    for key, blocks in scaled.source.uses:
        if key not in changed and any(np.isin(scaled.labels, other).any() for _, other in blocks):
            raise ScaleError(f"{CHANGED}, and what is scaled is used unscaled by {key[0]!r}")


def _labelled_places(run: LabelledRun, scaled: _Scaled) -> Iterable[tuple[str, int, Ints]]:
    """(tensor, dimension, entries) that are to be scaled back, biases that are added to them included."""
    labels = _with_their_rows(run.evidence, scaled.labels.ravel())
    pairs = run.evidence.bias_pairs if scaled.source.out_of_layer else ()
    alike = [labels] + [bias[np.isin(weight, labels)] for weight, bias in pairs]
    starts = [slot.first for slot in run.slots]
    for group in (labels[labels < starts[-1] + run.slots[-1].size] for labels in alike):
        for place in np.unique(np.searchsorted(starts, group, side="right") - 1):
            slot = run.slots[place]
            own = np.unique(group[(group >= slot.first) & (group < slot.first + slot.size)])
            yield slot.tensor, slot.dim, own - slot.first


def _with_their_rows(evidence: Evidence, labels: Ints) -> Ints:
    """The labels, and those of all entries of the rows that have one of them for their label."""
    rows = [rows[np.isin(rows[:, 0], labels)].ravel() for rows in evidence.rows]
    return np.unique(np.concatenate([labels, *rows]))
