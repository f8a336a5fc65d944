"""(graph, scores, target) -> Keep. A strategy is an order in which units are removed; the target cuts the order off.

The target contract: the cost of the Keep is within 1 % of the dense cost of what was asked for, or `TargetError` names
the smallest reachable ratio and what holds it up. Cost never rises when a unit goes, so bisection finds the cut.

Units go in blocks, each down to the next width that its group may have: one by one unless `round_to` asks for more.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from autoprune.engine.allocation.widths import _reach, _weights, _Widths, _widths, channels_per_unit
from autoprune.engine.cost import Cost, cost_of_counts, flops_by_layer
from autoprune.engine.graph import ChannelGraph, Floats, Group, Ints
from autoprune.engine.keep import Keep
from autoprune.errors import InputError, StudyError, TargetError, check_name
from autoprune.recipe import Allocation, Target

Scores = Mapping[str, ArrayLike]


#: How far from the target the cost may end, as a share of the dense cost.
TOLERANCE = 0.01

#: How many combinations of widths are tried around the cut before a target is refused.
TRIES = 4096


def allocate(graph: ChannelGraph, scores: Scores, target: Target, how: Allocation | None = None) -> Keep:
    """Which units stay when `target` is met with the highest scores kept.

    Args:
        graph: of the dense model.
        scores: group id -> one score per unit, higher = keep; groups left out are not pruned.
        target: what the pruned model may cost; an empty target keeps everything.
        how: the strategy and its limits (default: global ranking by scores over their group's mean).

    Raises:
        InputError: unknown or frozen group, wrong number of scores, a score that is not finite, a ratio key that
            matches no group; `features` with a coefficient of `sensitivity`, which only a trial can measure.
        TargetError: the target is below what can be reached, or no widths come within 1 % of it.
    """
    how = how or Allocation()
    ranked = _ranked(graph, scores)
    weights = _weights(graph, how, scores)
    widths = _widths(graph, how, weights)
    order = _removal_order(ranked, widths, weights, how)
    return _keep(graph, ranked, _meet(graph, widths, order, target))


def share_kept(graph: ChannelGraph, scores: Scores, keep: Keep) -> float:
    """The share of its scores that the average channel's group keeps: by it, ways to cut one network are compared."""
    channels = channels_per_unit(graph)
    kept, total = dict(keep.kept), 0.0
    for group in graph.prunable:
        values = np.abs(np.asarray(scores.get(group.id, np.ones(group.size)), dtype=np.float64))
        stays = values[list(kept[group.id])].sum() if group.id in kept else values.sum()
        total += group.size * channels[group.id] * (stays / values.sum() if values.any() else 1.0)
    return total / sum(group.size * channels[group.id] for group in graph.prunable)


def smallest(graph: ChannelGraph, how: Allocation | None = None) -> Cost:
    """The cost when everything that `how` allows is pruned."""
    how = how or Allocation()
    return cost_of_counts(graph, _reach(graph, how, graph.by_id).lowest)


def check_target(graph: ChannelGraph, target: Target, how: Allocation | None = None) -> None:
    """Raise `TargetError` if the target is out of reach, whatever the scores."""
    how = how or Allocation()
    limits = _limits(graph, target)
    lowest = _reach(graph, how, graph.by_id).lowest
    if limits.ratios and limits.excess(lowest) > 0:
        raise _unreachable(limits, lowest)


def excess(graph: ChannelGraph, keep: Keep, target: Target) -> float:
    """How far the worst limit of the target is overshot, as a share of the dense cost; negative = room left.

    Without a limit it is minus infinity.
    """
    found = cost_of_counts(graph, keep.counts(graph)).ratios(cost_of_counts(graph, graph.sizes))
    return max((found[name] - limit for name, limit in target.ratios().items()), default=-math.inf)


def check_prunable(graph: ChannelGraph) -> None:
    """Raise `StudyError` if nothing of the model can be pruned: that must not pass for a result."""
    if all(group.size == 1 for group in graph.prunable):
        reasons = "; ".join(f"{group.id}: {group.frozen or 'all or nothing'}" for group in graph.groups[:3])
        raise StudyError(f"nothing of this model can be pruned ({reasons or 'it has no channels that can go'})")


def held_up_by(graph: ChannelGraph, how: Allocation | None = None, most: int = 3) -> dict[str, float]:
    """The layers that cost most when everything that `how` allows is pruned: name -> share of the FLOPs left."""
    how = how or Allocation()
    return _largest(graph, _reach(graph, how, graph.by_id).lowest, most)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The units of all prunable groups, one group after the other, in each the lowest score first.

    `column`, `rank`, `position` (in the group) and `score` of each unit, all of shape (units,); `start` of each group.
    """

    column: Ints
    rank: Ints
    position: Ints
    score: Floats
    start: Ints


@dataclass(frozen=True, eq=False)
class _Order:
    """Blocks in the order of removal: the graph column of each and how many units it holds, both shape (blocks,)."""

    column: Ints
    units: Ints

    def kept(self, widths: _Widths, blocks: int) -> Ints:
        """What every group keeps when the first `blocks` are gone."""
        gone = np.bincount(self.column[:blocks], self.units[:blocks], len(widths.dense))
        return widths.dense - gone.astype(np.int64)


def _ranked(graph: ChannelGraph, scores: Scores) -> _Ranked:
    """Groups without scores are ranked as they come: none of their units will go."""
    for group_id in scores:
        if group_id not in graph.by_id:
            graph.group(check_name(group_id, [group.id for group in graph.groups], kind="group", where="scores"))
    given = [_of_size(group, scores.get(group.id, np.zeros(group.size))) for group in graph.prunable]
    column, start = np.repeat(np.arange(len(given)), graph.sizes), np.cumsum(graph.sizes) - graph.sizes
    position = np.concatenate([np.zeros(0, np.int64), *(np.argsort(values, kind="stable") for values in given)])
    score = np.concatenate([np.zeros(0), *given])[start[column] + position]
    if not (finite := np.isfinite(score)).all():
        wrong = graph.prunable[column[np.argmin(finite)]].id
        raise InputError("scores that are not finite", where=f"scores of {wrong!r}", allowed="finite numbers")
    return _Ranked(column, np.arange(len(column)) - start[column], position, score, start)


def _of_size(group: Group, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (group.size,):
        raise InputError(f"shape {array.shape}", where=f"scores of {group.id!r}", allowed=f"({group.size},)")
    return array


def _removal_order(ranked: _Ranked, widths: _Widths, weights: Floats, how: Allocation) -> _Order:
    """All blocks that may go, sorted by key.

    A block ends with the unit whose removal leaves its group at a width it may have. In a group the lowest scores go
    first, so keys must rise with them: the key of a block is that of its middle unit.
    """
    left = widths.dense[ranked.column] - ranked.rank - 1
    ends = (left % widths.step[ranked.column] == 0) & (left >= widths.lowest[ranked.column])
    column, left = ranked.column[ends], left[ends]
    dense = widths.dense[column]
    units = np.minimum(dense, left + widths.step[column]) - left
    middle = dense - left - units / 2
    if how.name == "global":
        unit = ranked.start[column] + middle.astype(np.int64)
        keys = ranked.score[unit] / _scales(ranked, widths, how.normalise)[column]
    else:  # the share of the group that is gone by then
        keys = middle / (dense * weights[column])
    by_key = np.argsort(keys, kind="stable")
    return _Order(column[by_key], units[by_key])


def _scales(ranked: _Ranked, widths: _Widths, normalise: str) -> Floats:
    """What the scores of each group are divided by, shape (prunable groups,)."""
    size = np.abs(ranked.score)
    match normalise:
        case "mean":
            scales = np.add.reduceat(size, ranked.start) / widths.dense
        case "max":
            scales = np.maximum.reduceat(size, ranked.start)
        case "std":
            mean = np.add.reduceat(ranked.score, ranked.start) / widths.dense
            squares = (ranked.score - mean[ranked.column]) ** 2
            scales = np.sqrt(np.add.reduceat(squares, ranked.start) / widths.dense)
        case _:
            scales = np.ones(len(widths.dense))
    return np.where(scales > 0, scales, 1.0)


@dataclass(frozen=True, eq=False)
class _Limits:
    """What the pruned model may cost, as ratios to the dense cost."""

    graph: ChannelGraph
    dense: Cost
    ratios: Mapping[str, float]

    def reached(self, kept: Ints) -> dict[str, float]:
        """The ratios that are limited."""
        ratios = cost_of_counts(self.graph, kept).ratios(self.dense)
        return {name: ratios[name] for name in self.ratios}

    def excess(self, kept: Ints) -> float:
        """How far the worst limit is overshot, as a share of the dense cost; negative = room left."""
        found = self.reached(kept)
        return max(found[name] - limit for name, limit in self.ratios.items())


#: Excess of widths that were tried, and the widths.
_Tried = tuple[float, Ints]


def _limits(graph: ChannelGraph, target: Target) -> _Limits:
    return _Limits(graph, cost_of_counts(graph, graph.sizes), target.ratios())


def _meet(graph: ChannelGraph, widths: _Widths, order: _Order, target: Target) -> Ints:
    """What every group keeps, shape (prunable groups,)."""
    limits = _limits(graph, target)
    if not limits.ratios or limits.excess(widths.dense) <= 0:
        return widths.dense
    if limits.excess(widths.lowest) > 0:
        raise _unreachable(limits, widths.lowest)
    tried = _search(limits, widths, _cut(limits, widths, order))
    over, found = min(tried, key=lambda one: abs(one[0]))
    if abs(over) > TOLERANCE:
        raise _too_coarse(limits, tried)
    return found


def _cut(limits: _Limits, widths: _Widths, order: _Order) -> Ints:
    """What is kept when as few blocks go, in order, as the target needs."""
    blocks = range(len(order.units))
    return order.kept(
        widths, bisect.bisect_left(blocks, x=True, key=lambda n: limits.excess(order.kept(widths, n)) <= 0)
    )


def _search(limits: _Limits, widths: _Widths, cut: Ints) -> list[_Tried]:
    """The cut and widths around it, until some are near enough or `TRIES` are spent.

    Where a block is worth more than the tolerance, others must make up for it: while there is room left one block goes
    back, while the target is overshot one more goes; always from the nearest widths found so far. Such steps lead to
    all widths there are (from any, some step goes towards those wanted), so in a small network nothing is missed.
    """
    tried = [(limits.excess(cut), cut)]
    queue, seen = [(abs(tried[0][0]), 0)], {cut.tobytes()}
    while queue and len(tried) < TRIES:
        distance, index = heapq.heappop(queue)
        if distance <= TOLERANCE:
            break
        over, kept = tried[index]
        for other in _one_moved(kept, widths.above(kept) if over < 0 else widths.below(kept)):
            if other.tobytes() not in seen:
                seen.add(other.tobytes())
                tried.append((limits.excess(other), other))
                heapq.heappush(queue, (abs(tried[-1][0]), len(tried) - 1))
    return tried


def _one_moved(kept: Ints, moved: Ints) -> Iterator[Ints]:
    for column in np.flatnonzero(moved != kept):
        other = kept.copy()
        other[column] = moved[column]
        yield other


def _too_coarse(limits: _Limits, tried: list[_Tried]) -> TargetError:
    sides = [[one for one in tried if (one[0] > 0) == above] for above in (False, True)]
    nearest = [min(side, key=lambda one: abs(one[0]))[1] for side in sides if side]
    return TargetError(
        f"found no widths within {TOLERANCE:.0%} of {_said(limits.ratios)}: single steps are worth more than that",
        where="target",
        allowed=f"a ratio near {' or '.join(_said(_rounded_up(limits.reached(kept))) for kept in nearest)}",
    )


def _unreachable(limits: _Limits, lowest: Ints) -> TargetError:
    reachable = _rounded_up(limits.reached(lowest))
    frozen = [f"{group.id} ({group.frozen})" for group in limits.graph.groups if group.frozen]
    why = f"; frozen: {', '.join(frozen[:3])}" if frozen else ""
    return TargetError(
        f"{_said(limits.ratios)} cannot be reached: held up by {', '.join(_largest(limits.graph, lowest, 3))}{why}",
        where="target",
        allowed=", ".join(f"{name} >= {ratio:.4f}" for name, ratio in reachable.items()),
    )


def _largest(graph: ChannelGraph, kept: Ints, most: int) -> dict[str, float]:
    """The layers that cost most at these widths: name -> share of the FLOPs."""
    keep = Keep.of({group.id: range(int(n)) for group, n in zip(graph.prunable, kept, strict=True)})
    costs = flops_by_layer(graph, keep)
    total = sum(costs.values()) or 1
    return {name or "model": costs[name] / total for name in sorted(costs, key=lambda name: -costs[name])[:most]}


def _rounded_up(ratios: Mapping[str, float]) -> dict[str, float]:
    """To four decimals, so that what is named can be asked for."""
    return {name: math.ceil(ratio * 1e4) / 1e4 for name, ratio in ratios.items()}


def _said(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {ratio:g}" for name, ratio in ratios.items())


def _keep(graph: ChannelGraph, ranked: _Ranked, counts: Ints) -> Keep:
    """The highest-ranked units of every group that loses some."""
    kept = {}
    ends = np.cumsum(graph.sizes).tolist()
    for group, size, end, count in zip(graph.prunable, graph.sizes.tolist(), ends, counts.tolist(), strict=True):
        if count < size:
            kept[group.id] = tuple(np.sort(ranked.position[end - count : end]).tolist())
    return Keep(tuple(sorted(kept.items())))
