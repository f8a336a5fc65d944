"""The order in which units go: blocks, each down to the next width that its group may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from autoprune.engine.allocation.removal_rule import RemovalRule
from autoprune.engine.allocation.widths import WidthGrid
from autoprune.engine.graph import ChannelGraph, Floats, Group, Ints
from autoprune.errors import InputError, check_name

Scores = Mapping[str, ArrayLike]


@dataclass(frozen=True, eq=False)
class RankedUnits:
    """The units of all prunable groups, one group after the other, in each the lowest score first.

    `column`, `rank`, `position` (in the group) and `score` of each unit, all of shape (units,); `start` of each group.
    """

    column: Ints
    rank: Ints
    position: Ints
    score: Floats
    start: Ints


@dataclass(frozen=True, eq=False)
class RemovalOrder:
    """Blocks in the order of removal: the graph column of each and how many units it holds, both shape (blocks,)."""

    column: Ints
    units: Ints

    def kept(self, widths: WidthGrid, blocks: int) -> Ints:
        """What every group keeps when the first `blocks` are gone."""
        gone = np.bincount(self.column[:blocks], self.units[:blocks], len(widths.dense))
        return widths.dense - gone.astype(np.int64)


def rank_units(graph: ChannelGraph, scores: Scores) -> RankedUnits:
    """Units by their scores; groups without scores are ranked as they come: none of their units will go.

    Scores of frozen groups say nothing: `graph.groups` lists these too, and a loop over it gives them some.

    Raises:
        InputError: unknown group, wrong number of scores, a score of a prunable group that is not finite.
    """
    groups = {group.id: group for group in graph.groups}
    for group_id, values in scores.items():
        _check_size(groups[check_name(group_id, groups, kind="group", where="scores")], values)
    given = [_check_size(group, scores.get(group.id, np.zeros(group.size))) for group in graph.prunable]
    column, start = np.repeat(np.arange(len(given)), graph.sizes), np.cumsum(graph.sizes) - graph.sizes
    position = np.concatenate([np.zeros(0, np.int64), *(np.argsort(values, kind="stable") for values in given)])
    score = np.concatenate([np.zeros(0), *given])[start[column] + position]
    if not (finite := np.isfinite(score)).all():
        wrong = graph.prunable[column[np.argmin(finite)]].id
        raise InputError("scores that are not finite", where=f"scores of {wrong!r}", allowed="finite numbers")
    return RankedUnits(column, np.arange(len(column)) - start[column], position, score, start)


def _check_size(group: Group, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (group.size,):
        raise InputError(f"shape {array.shape}", where=f"scores of {group.id!r}", allowed=f"({group.size},)")
    return array


def removal_order(ranked: RankedUnits, widths: WidthGrid, rule: RemovalRule) -> RemovalOrder:
    """All blocks that may go, sorted by key.

    A block ends with the unit whose removal leaves its group at a width it may have. In a group the lowest scores go
    first, so keys must rise with them: the key of a block is that of its middle unit.
    """
    left = widths.dense[ranked.column] - ranked.rank - 1
    ends = widths.has(ranked.column, left)
    column, left = ranked.column[ends], left[ends]
    dense = widths.dense[column]
    units = widths.higher_of(column, left) - left
    middle = dense - left - units / 2
    if rule.normalise is None:  # the share of the group that is gone by then
        keys = middle / (dense * rule.weights[column])
    else:
        unit = ranked.start[column] + middle.astype(np.int64)
        keys = ranked.score[unit] / scale_by_group(ranked, rule.normalise)[column] / rule.weights[column]
    if rule.classes is not None:
        sizes = np.bincount(rule.classes, widths.dense * (rule.weights > 0)).astype(np.int64)
        keys = _shares_of_classes(keys, units, rule.classes[column], sizes)
    by_key = np.argsort(keys, kind="stable")
    return RemovalOrder(column[by_key], units[by_key])


def _shares_of_classes(keys: Floats, units: Ints, classes: Ints, sizes: Ints) -> Floats:
    """The share of its class that is gone when the middle of each block is, in the order of keys inside the class.

    Args:
        keys, units, classes: of each block, all of shape (blocks,).
        sizes: units of every class, shape (classes,).
    """
    order = np.lexsort((keys, classes))
    gone = np.cumsum(units[order])
    before = np.searchsorted(classes[order], classes[order])  # the first block of the class
    start = np.concatenate([[0], gone])[before]
    shares = np.empty(len(keys))
    shares[order] = (gone - start - units[order] / 2) / sizes[classes[order]]
    return shares


def scale_by_group(ranked: RankedUnits, normalise: str) -> Floats:
    """What the scores of each group are divided by, shape (prunable groups,); see `Allocation.normalise`."""
    size, count = np.abs(ranked.score), np.diff(ranked.start, append=len(ranked.score))
    match normalise:
        case "mean":
            scales = np.add.reduceat(size, ranked.start) / count
        case "max":
            scales = np.maximum.reduceat(size, ranked.start)
        case "std":
            mean = np.add.reduceat(ranked.score, ranked.start) / count
            squares = (ranked.score - mean[ranked.column]) ** 2
            scales = np.sqrt(np.add.reduceat(squares, ranked.start) / count)
        case _:
            scales = np.ones(len(count))
    return np.where(scales > 0, scales, 1.0)
