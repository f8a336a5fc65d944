"""(graph, scores, target) -> Keep. A strategy is an order in which units are removed; the target cuts the order off.

The target contract: the cost of the Keep is within 1 % of the dense cost of what was asked for, or `TargetError` names
the smallest reachable ratio and what holds it up. Cost never rises when a unit goes, so bisection finds the cut.

Units go in blocks, each down to the next width that its group may have: one by one unless `round_to` asks for more.
Where the widths that `round_to: auto` finds fast do not come within 1 % of the target, finer ones are taken
(`widths.finer`): a target that can be met is met.
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from autoprune.engine.allocation.removal_order import RankedUnits, RemovalOrder, Scores, rank_units, removal_order
from autoprune.engine.allocation.removal_rule import RemovalRule, rule_of
from autoprune.engine.allocation.strategies import Strategy, WidthLimits, limits_of, strategy_of
from autoprune.engine.allocation.widths import WidthGrid, channels_per_unit, finer, widths_in_reach
from autoprune.engine.cost import Cost, cost_of_counts, flops_by_layer
from autoprune.engine.graph import ChannelGraph, Ints
from autoprune.engine.keep import Keep
from autoprune.errors import InputError, ModelError, TargetError
from autoprune.recipe import Allocation, Target

T = TypeVar("T")

#: How far from the target the cost may end, as a share of the dense cost.
TOLERANCE = 0.01

#: How many combinations of widths are tried around the cut before a target is refused.
TRIES = 4096


def allocate(graph: ChannelGraph, scores: Scores, target: Target, allocation: Allocation | None = None) -> Keep:
    """Which units stay when `target` is met with the highest scores kept.

    Args:
        graph: of the dense model.
        scores: group id -> one score per unit, higher = keep; groups left out are not pruned, frozen ones neither.
        target: what the pruned model may cost; an empty target keeps everything.
        allocation: the strategy and its limits (default: global ranking by scores over their group's mean).

    Raises:
        InputError: unknown group, wrong number of scores, a score that is not finite, a ratio key that
            matches no group; `features` with a coefficient of `sensitivity`, which only a trial can measure.
        TargetError: the target is below what can be reached, or no widths come within 1 % of it.
    """
    allocation = allocation or Allocation()
    return allocate_by(graph, scores, target, strategy_of(allocation), limits_of(allocation))


def allocate_by(graph: ChannelGraph, scores: Scores, target: Target, strategy: Strategy, limits: WidthLimits) -> Keep:
    """`allocate` for an allocation in parts."""
    ranked = rank_units(graph, scores)
    rule = rule_of(graph, strategy, scores)

    def counts_within(limits: WidthLimits) -> Ints:
        widths = WidthGrid.of(graph, limits, rule.weights > 0)
        return _meet_target(graph, widths, removal_order(ranked, widths, rule), target)

    return _keep_highest(graph, ranked, _first_that_meets(counts_within, limits))


def share_kept(graph: ChannelGraph, scores: Scores, keep: Keep) -> float:
    """The share of its scores that the average channel's group keeps: by it, ways to cut one network are compared."""
    channels = channels_per_unit(graph)
    kept, total = dict(keep.kept), 0.0
    for group in graph.prunable:
        values = np.abs(np.asarray(scores.get(group.id, np.ones(group.size)), dtype=np.float64))
        stays = values[list(kept[group.id])].sum() if group.id in kept else values.sum()
        total += group.size * channels[group.id] * (stays / values.sum() if values.any() else 1.0)
    return total / sum(group.size * channels[group.id] for group in graph.prunable)


def smallest(graph: ChannelGraph, allocation: Allocation | None = None, groups: Container[str] | None = None) -> Cost:
    """The cost when everything that `allocation` allows is pruned; `groups`: see `check_target`."""
    return cost_of_counts(graph, _widths_of(graph, allocation, groups).lowest)


def check_target(
    graph: ChannelGraph, target: Target, allocation: Allocation | None = None, groups: Container[str] | None = None
) -> None:
    """Raise `TargetError` if the target is out of reach, whatever the scores.

    Args:
        groups: ids of the groups that have scores (default: all prunable ones).
    """
    _is_cut_needed(_cost_limits(graph, target), _widths_of(graph, allocation, groups))


def check_widths(
    graph: ChannelGraph, target: Target, allocation: Allocation | None = None, groups: Container[str] | None = None
) -> None:
    """Raise `TargetError` unless some widths meet the target; then `allocate` finds such, whatever the scores.

    Args:
        groups: see `check_target`.
    """
    chosen, costs = allocation or Allocation(), _cost_limits(graph, target)

    def check_within(limits: WidthLimits) -> None:
        widths = widths_in_reach(graph, chosen, graph.by_id if groups is None else groups, limits)
        if _is_cut_needed(costs, widths):
            _nearest_widths(costs, _search_evenly(costs, widths))

    _first_that_meets(check_within, limits_of(chosen))


def excess(graph: ChannelGraph, keep: Keep, target: Target) -> float:
    """How far the worst limit of the target is overshot, as a share of the dense cost; negative = room left.

    Without a limit it is minus infinity.
    """
    found = cost_of_counts(graph, keep.counts(graph)).ratios(cost_of_counts(graph, graph.sizes))
    return max((found[name] - limit for name, limit in target.ratios().items()), default=-math.inf)


def check_prunable(graph: ChannelGraph) -> None:
    """Raise `ModelError` if nothing of the model can be pruned: that must not pass for a result."""
    if all(group.size == 1 for group in graph.prunable):
        reasons = "; ".join(f"{group.id}: {group.frozen or 'all or nothing'}" for group in graph.groups[:3])
        raise ModelError(f"nothing of this model can be pruned ({reasons or 'it has no channels that can go'})")


def held_up_by(graph: ChannelGraph, allocation: Allocation | None = None, most: int = 3) -> dict[str, float]:
    """The layers that cost most when everything that `allocation` allows is pruned: name -> share of the FLOPs left."""
    return _costliest_layers(graph, _widths_of(graph, allocation, None).lowest, most)


def _widths_of(graph: ChannelGraph, allocation: Allocation | None, groups: Container[str] | None) -> WidthGrid:
    """The finest widths that the allocation comes down to."""
    chosen = allocation or Allocation()
    *_, finest = finer(limits_of(chosen))
    return widths_in_reach(graph, chosen, graph.by_id if groups is None else groups, finest)


def _first_that_meets(attempt: Callable[[WidthLimits], T], limits: WidthLimits) -> T:
    """What an attempt gives with the coarsest widths that meet the target; raises what it raises with the finest."""
    *coarser, finest = finer(limits)
    for each in coarser:
        with contextlib.suppress(TargetError):
            return attempt(each)
    return attempt(finest)


@dataclass(frozen=True, eq=False)
class _CostLimits:
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


def _cost_limits(graph: ChannelGraph, target: Target) -> _CostLimits:
    if target.latency is not None:
        what = "a graph has no latency"
        raise InputError(what, where="target.latency", allowed="flops, params; latency in a trial, which measures it")
    return _CostLimits(graph, cost_of_counts(graph, graph.sizes), target.ratios())


def _meet_target(graph: ChannelGraph, widths: WidthGrid, order: RemovalOrder, target: Target) -> Ints:
    """What every group keeps, shape (prunable groups,)."""
    limits = _cost_limits(graph, target)
    if not _is_cut_needed(limits, widths):
        return widths.dense
    tried = _search_around(limits, widths, _cut_order_off(limits, widths, order))
    if not _is_met(tried) and len(tried) >= TRIES:  # there are others, which are found where `check_widths` looks
        tried += _search_evenly(limits, widths)
    return _nearest_widths(limits, tried)


def _is_cut_needed(limits: _CostLimits, widths: WidthGrid) -> bool:
    """Whether the dense widths exceed the target; raises `TargetError` if even the lowest do."""
    if not limits.ratios or limits.excess(widths.dense) <= 0:
        return False
    if limits.excess(widths.lowest) > 0:
        raise _unreachable_error(limits, widths.lowest)
    return True


def _is_met(tried: list[_Tried]) -> bool:
    return min(abs(over) for over, _ in tried) <= TOLERANCE


def _nearest_widths(limits: _CostLimits, tried: list[_Tried]) -> Ints:
    """Those that come nearest to the target; raises `TargetError` if that is not near enough."""
    if not _is_met(tried):
        raise _too_coarse_error(limits, tried)
    return min(tried, key=lambda one: abs(one[0]))[1]


def _search_evenly(limits: _CostLimits, widths: WidthGrid) -> list[_Tried]:
    """Widths around those that take the same share of every group, which need no scores."""
    even = RemovalRule(np.ones(len(limits.graph.prunable)))
    order = removal_order(rank_units(limits.graph, {}), widths, even)
    return _search_around(limits, widths, _cut_order_off(limits, widths, order))


def _cut_order_off(limits: _CostLimits, widths: WidthGrid, order: RemovalOrder) -> Ints:
    """What is kept when as few blocks go, in order, as the target needs."""
    blocks = range(len(order.units))
    return order.kept(
        widths, bisect.bisect_left(blocks, x=True, key=lambda n: limits.excess(order.kept(widths, n)) <= 0)
    )


def _search_around(limits: _CostLimits, widths: WidthGrid, cut: Ints) -> list[_Tried]:
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


def _too_coarse_error(limits: _CostLimits, tried: list[_Tried]) -> TargetError:
    sides = [[one for one in tried if (one[0] > 0) == above] for above in (False, True)]
    nearest = [min(side, key=lambda one: abs(one[0]))[1] for side in sides if side]
    asked, near = _format_ratios(limits.ratios), [_format_ratios(_rounded_up(limits.reached(kept))) for kept in nearest]
    return TargetError(
        f"found no widths within {TOLERANCE:.0%} of {asked}: single steps are worth more than that",
        where="target",
        allowed=f"a ratio near {' or '.join(near)}",
    )


def _unreachable_error(limits: _CostLimits, lowest: Ints) -> TargetError:
    reachable = _rounded_up(limits.reached(lowest))
    frozen = [f"{group.id} ({group.frozen})" for group in limits.graph.groups if group.frozen]
    why = f"; frozen: {', '.join(frozen[:3])}" if frozen else ""
    layers = ", ".join(_costliest_layers(limits.graph, lowest, 3))
    return TargetError(
        f"{_format_ratios(limits.ratios)} cannot be reached: held up by {layers}{why}",
        where="target",
        allowed=", ".join(f"{name} >= {ratio:.4f}" for name, ratio in reachable.items()),
    )


def _costliest_layers(graph: ChannelGraph, kept: Ints, most: int) -> dict[str, float]:
    """The layers that cost most at these widths: name -> share of the FLOPs."""
    keep = Keep.of({group.id: range(int(n)) for group, n in zip(graph.prunable, kept, strict=True)})
    costs = flops_by_layer(graph, keep)
    total = sum(costs.values()) or 1
    return {name or "model": costs[name] / total for name in sorted(costs, key=lambda name: -costs[name])[:most]}


def _rounded_up(ratios: Mapping[str, float]) -> dict[str, float]:
    """To four decimals, so that what is named can be asked for."""
    return {name: math.ceil(ratio * 1e4) / 1e4 for name, ratio in ratios.items()}


def _format_ratios(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {ratio:g}" for name, ratio in ratios.items())


def _keep_highest(graph: ChannelGraph, ranked: RankedUnits, counts: Ints) -> Keep:
    """The highest-ranked units of every group that loses some."""
    kept = {}
    ends = np.cumsum(graph.sizes).tolist()
    for group, size, end, count in zip(graph.prunable, graph.sizes.tolist(), ends, counts.tolist(), strict=True):
        if count < size:
            kept[group.id] = tuple(np.sort(ranked.position[end - count : end]).tolist())
    return Keep(tuple(sorted(kept.items())))
