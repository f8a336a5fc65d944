"""(graph, scores, target) -> Keep. A strategy is an order in which units are removed; the target cuts the order off.

The target contract: the cost of the Keep is within 1 % of the dense cost of what was asked for, or `TargetError` names
the smallest reachable ratio and what holds it up. Cost never rises when a unit goes, so bisection finds the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoprune.cost import Cost, cost_of_counts, flops_by_layer
from autoprune.errors import InputError, TargetError, check_name
from autoprune.graph import ChannelGraph, Floats, Group, Ints
from autoprune.keep import Keep
from autoprune.recipe import Allocation, Target

Scores = Mapping[str, ArrayLike]

#: How far from the target the cost may end, as a share of the dense cost.
TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class _Order:
    """Units in the order of removal: `column[i]` is the graph column of the i-th, `position[i]` its place there."""

    column: Ints
    position: Ints


def allocate(graph: ChannelGraph, scores: Scores, target: Target, how: Allocation | None = None) -> Keep:
    """Which units stay when `target` is met with the highest scores kept.

    Args:
        graph: of the dense model.
        scores: group id -> one score per unit, higher = keep; groups left out are not pruned.
        target: what the pruned model may cost; an empty target keeps everything.
        how: the strategy and its limits (default: global ranking by scores over their group's mean).

    Raises:
        InputError: unknown or frozen group, wrong number of scores, a score that is not finite, a ratio key that
            matches no group.
        TargetError: the target is below what can be reached, or no width comes within 1 % of it.
    """
    how = how or Allocation()
    checked = {group_id: _checked(graph, group_id, values) for group_id, values in scores.items()}
    order = _removal_order(graph, checked, how)
    removed = _meet(graph, order, target)
    return _keep(graph, order, removed)


def smallest(graph: ChannelGraph, how: Allocation | None = None) -> Cost:
    """The cost when everything that `how` allows is pruned."""
    floors = [_floor(group, how or Allocation()) for group in graph.prunable]
    return cost_of_counts(graph, np.array(floors, dtype=np.int64))


def shares(graph: ChannelGraph, how: Allocation) -> dict[str, float]:
    """The weight of each prunable group under `Allocation(name="ratios")`; unlisted groups have 0.

    Raises:
        InputError: a key of `how.ratios` that matches no group.
    """
    for key in how.ratios:
        if not any(_matches(key, group) for group in graph.prunable):
            stages = sorted({f"stage{group.stage}" for group in graph.prunable})
            allowed = ", ".join([*stages, *graph.by_id]) + ", or a pattern such as layer1.*"
            raise InputError(f"{key!r} matches no prunable group", where="allocation.ratios", allowed=allowed)
    return {group.id: _share(group, how.ratios) for group in graph.prunable}


# ---- orders of removal -----------------------------------------------------------------------------------------------


def _removal_order(graph: ChannelGraph, scores: Mapping[str, Floats], how: Allocation) -> _Order:
    """All removable units sorted by (key, score rank); within a group the order is always that of the scores."""
    keys, columns, positions = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    weight = shares(graph, how) if how.name == "ratios" else {}
    for group_id, values in scores.items():
        group = graph.by_id[group_id]
        ranked = np.argsort(values, kind="stable")[: group.size - _floor(group, how)]
        keys.append(_keys(how, values, ranked, weight.get(group_id)))
        columns.append(np.full(len(ranked), graph.column[group_id]))
        positions.append(ranked)
    key = np.concatenate(keys)
    finite = np.flatnonzero(np.isfinite(key))
    by_key = finite[np.argsort(key[finite], kind="stable")]
    return _Order(np.concatenate(columns)[by_key], np.concatenate(positions)[by_key])


def _keys(how: Allocation, values: Floats, ranked: Ints, share: float | None) -> Floats:
    """Smaller keys go first. By rank for `uniform` and `ratios` (share of the group gone, over its weight)."""
    if how.name == "global":
        return values[ranked] / _scale(values, how.normalise)
    gone = (np.arange(len(ranked)) + 0.5) / len(values)
    if share is None:
        return gone
    return gone / share if share > 0 else np.full(len(gone), np.inf)


def _scale(values: Floats, normalise: str) -> float:
    size = np.abs(values)
    scale = {"none": 1.0, "mean": size.mean(), "max": size.max(), "std": values.std()}[normalise]
    return float(scale) or 1.0


def _floor(group: Group, how: Allocation) -> int:
    by_ratio = int(np.ceil(group.size * (1 - how.max_ratio) - 1e-9))
    return min(group.size, max(how.min_channels, by_ratio, 1))


def _matches(key: str, group: Group) -> bool:
    return key in (group.id, f"stage{group.stage}") or fnmatchcase(group.id, key)


def _share(group: Group, ratios: Mapping[str, float]) -> float:
    for key in (group.id, f"stage{group.stage}"):
        if key in ratios:
            return ratios[key]
    return next((ratio for key, ratio in ratios.items() if fnmatchcase(group.id, key)), 0.0)


def _checked(graph: ChannelGraph, group_id: str, values: ArrayLike) -> Floats:
    group = graph.group(check_name(group_id, {g.id for g in graph.groups}, kind="group", where="scores"))
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (group.size,):
        raise InputError(f"shape {array.shape}", where=f"scores of {group_id!r}", allowed=f"({group.size},)")
    if not np.isfinite(array).all():
        raise InputError("scores that are not finite", where=f"scores of {group_id!r}", allowed="finite numbers")
    return array


# ---- meeting the target ----------------------------------------------------------------------------------------------


def _meet(graph: ChannelGraph, order: _Order, target: Target) -> NDArray[np.bool_]:
    """Which entries of the order are removed, shape (len(order),)."""
    limits = target.ratios()
    dense = cost_of_counts(graph, graph.sizes)

    def excess(removed: NDArray[np.bool_]) -> float:
        """How far the worst limit is overshot, as a share of the dense cost; negative = room left."""
        gone = np.bincount(order.column[removed], minlength=len(graph.sizes))
        ratios = cost_of_counts(graph, graph.sizes - gone).ratios(dense)
        return max((ratios[name] - limit for name, limit in limits.items()), default=-1.0)

    index = np.arange(len(order.column))
    if not limits or excess(index < 0) <= 0:
        return index < 0
    if excess(index >= 0) > 0:
        raise _unreachable(graph, order, target)
    return _refine(order, _shortest_prefix(excess, index), excess, target)


def _shortest_prefix(excess: Callable[[NDArray[np.bool_]], float], index: Ints) -> NDArray[np.bool_]:
    low, high = 0, len(index)  # a prefix of `low` misses the target, one of `high` meets it
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if excess(index < middle) <= 0 else (middle, high)
    return index < high


def _refine(
    order: _Order, removed: NDArray[np.bool_], excess: Callable[[NDArray[np.bool_]], float], target: Target
) -> NDArray[np.bool_]:
    """Where one unit is worth more than the tolerance, put back what fits: per group the last unit removed, once each.

    Cost depends on how many units of a group stay, not on which, so one try per group and round says all.
    """
    while excess(removed) < -TOLERANCE:
        candidates = []
        for column in dict.fromkeys(order.column[removed][::-1].tolist()):
            last = np.flatnonzero(removed & (order.column == column))[-1]
            trial = removed.copy()
            trial[last] = False
            over = excess(trial)
            if over <= TOLERANCE:
                candidates.append((abs(over), int(last)))
        if not candidates:
            raise TargetError(
                f"no widths come within {TOLERANCE:.0%} of {_said(target)}: single channels are worth more than that",
                where="target",
                allowed=f"a ratio near {_nearest(target, excess(removed))}",
            )
        removed = removed.copy()
        removed[min(candidates)[1]] = False
    return removed


def _nearest(target: Target, over: float) -> str:
    return ", ".join(f"{name}: {limit + over:.3f}" for name, limit in target.ratios().items())


def _said(target: Target) -> str:
    return ", ".join(f"{name}: {limit:g}" for name, limit in target.ratios().items())


def _unreachable(graph: ChannelGraph, order: _Order, target: Target) -> TargetError:
    gone = np.bincount(order.column, minlength=len(graph.sizes))
    counts = graph.sizes - gone
    ratios = cost_of_counts(graph, counts).ratios(cost_of_counts(graph, graph.sizes))
    reachable = ", ".join(f"{name} >= {ratios[name]:.4f}" for name in target.ratios())
    kept = {group.id: range(int(n)) for group, n in zip(graph.prunable, counts, strict=True)}
    costs = sorted(flops_by_layer(graph, Keep.of(kept)).items(), key=lambda item: -item[1])
    holders = ", ".join(name or "model" for name, _ in costs[:3])
    frozen = [f"{group.id} ({group.frozen})" for group in graph.groups if group.frozen]
    why = f"; frozen: {', '.join(frozen[:3])}" if frozen else ""
    return TargetError(
        f"{_said(target)} cannot be reached: held up by {holders}{why}", where="target", allowed=reachable
    )


def _keep(graph: ChannelGraph, order: _Order, removed: NDArray[np.bool_]) -> Keep:
    kept = {}
    for column, group in enumerate(graph.prunable):
        gone = order.position[removed & (order.column == column)]
        if len(gone):
            kept[group.id] = np.setdiff1d(np.arange(group.size), gone).tolist()
    return Keep.of(kept)
