"""Which trials are worth keeping: the front of a metric against cost, its hypervolume, its knee, the pick for export.

Arrays of points hold one row per point and one column per objective, and every objective is minimised. Outcomes
become points whose columns are the cost ratios of the study's trade-off, in their order, and at the end -height, how
good the metric is from 0 to 1 (`MetricSpec.height`): (flops_ratio, -accuracy) unless a study says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoprune.errors import InputError
from autoprune.study.outcome import DENSE, Outcome
from autoprune.study.tradeoff import ACCURACY_AND_FLOPS, Tradeoff

#: What the hypervolume is measured against where there is one cost: its ratio 1, and height 0.
REFERENCE = (1.0, 0.0)


def nondominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Mask of the rows that no other row dominates (no worse in every column, better in one); all columns minimised.

    Equal rows do not dominate each other: all of them are in, or none. A row with a NaN is never in, and dominates
    nothing.

    Args:
        points: (n, d).

    Returns:
        (n,) of bool.
    """
    rows = _as_rows(points)
    mask = np.zeros(len(rows), dtype=bool)
    known = np.flatnonzero(~np.isnan(rows).any(axis=1))
    # In lexicographic order a row comes after every row that dominates it.
    distinct, which = np.unique(rows[known], axis=0, return_inverse=True)
    best = _best_of_two(distinct) if rows.shape[1] == 2 else _best_of_many(distinct)
    mask[known] = best[which.reshape(-1)]
    return mask


def _best_of_two(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the rows of two columns, distinct and in lexicographic order, that no other one dominates."""
    before = np.concatenate([[np.inf], np.minimum.accumulate(rows[:-1, 1])]) if len(rows) else np.zeros(0)
    best: NDArray[np.bool_] = rows[:, 1] < before
    best[:1] = True  # also where it is infinite
    return best


def _best_of_many(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The same of any number of columns: one comparison with the rows that were kept suffices for each."""
    best, kept, count = np.zeros(len(rows), dtype=bool), np.empty_like(rows), 0
    for index, row in enumerate(rows):
        if not (kept[:count] <= row).all(axis=1).any():
            kept[count], best[index] = row, True
            count += 1
    return best


def ranked(points: ArrayLike) -> NDArray[np.int64]:
    """Rows in order of rank: front by front, in each the most isolated first (Deb et al. 2002, NSGA-II, sections III A
    and B), equal ones as they come; all columns minimised, rows with a NaN last.

    Args:
        points: (n, d).

    Returns:
        (n,) of indices.
    """
    rows = _as_rows(points)
    left, order = np.arange(len(rows)), np.zeros(0, dtype=np.int64)
    while len(left):
        best = nondominated(rows[left])
        front_now = left[best] if best.any() else left  # nothing but NaNs
        alone = _crowding_distances(rows[front_now])
        order = np.concatenate([order, front_now[np.argsort(-alone, kind="stable")]])
        left = left[~best] if best.any() else left[:0]
    return order


def hypervolume(points: ArrayLike, reference: Sequence[float] = REFERENCE) -> float:
    """Volume of the space that the points dominate, bounded by `reference`; exact; all columns minimised.

    Rows with a NaN, and rows that are not better than the reference in every column, add nothing. Two columns take
    O(n log n); every further column is cut into at most n slices.

    Args:
        points: (n, d) with d >= 2; for outcomes (flops_ratio, -height).
        reference: d numbers.
    """
    limit = np.asarray(reference, dtype=np.float64)
    rows = _as_rows(points, columns=len(limit))
    return _dominated_volume(rows[(rows < limit).all(axis=1)], limit)


def mean_height(points: ArrayLike, low: float = 0.1) -> float:
    """The best height at or below a cost, averaged over the costs from `low` to 1; exact.

    The mean of a step function: 0 as long as no point is that cheap, then the greatest height so far. Unlike the
    hypervolume it gives nothing for points below `low`, beyond what they are worth at `low`. A row with a NaN, and one
    of cost 1 or more, adds nothing.

    Args:
        points: (n, 2) of (cost ratio, -height), without the dense model.
        low: where the range of costs begins, in [0, 1).

    Raises:
        InputError: `low` is out of its range.
    """
    if not 0 <= low < 1:
        raise InputError(f"{low!r} is out of range", where="low", allowed="[0, 1)")
    rows = _as_rows(points, columns=2)
    clipped = np.column_stack([np.maximum(rows[:, 0], low), rows[:, 1]])  # a NaN stays one
    return hypervolume(clipped) / (1 - low)


def reference(tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> tuple[float, ...]:
    """What the hypervolume of outcomes is measured against: 1 for every cost ratio, and height 0."""
    return (*(1.0 for _ in tradeoff.costs), 0.0)


def points(outcomes: Iterable[Outcome], tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> NDArray[np.float64]:
    """(n, d) of the cost ratios and -height; NaN where an outcome did not complete or lacks a number."""
    nan, names = float("nan"), tradeoff.costs

    def row(outcome: Outcome) -> list[float]:
        height = tradeoff.height(outcome)
        numbers = [outcome.costs[name] for name in names]
        known = [number for number in numbers if number is not None]
        if not outcome.completed or height is None or len(known) < len(names):
            return [nan] * (len(names) + 1)
        return [*known, -height]

    return np.array([row(outcome) for outcome in outcomes], dtype=np.float64).reshape(-1, len(names) + 1)


def candidates(outcomes: Iterable[Outcome], tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> list[Outcome]:
    """The outcomes that may be on a front: completed, with all numbers, not below the limit, and pruned at all.

    The `random` control is one of them: a randomly pruned model that nothing beats is a result, and worth seeing. The
    `dense` control is not.
    """
    known = [o for o in outcomes if o.recipe.method.name != DENSE and not tradeoff.misses(o)]
    missing = np.isnan(points(known, tradeoff))
    return [outcome for outcome, numbers in zip(known, missing, strict=True) if not numbers.any()]


def front(
    outcomes: Iterable[Outcome], tradeoff: Tradeoff = ACCURACY_AND_FLOPS, *, unsure: bool = False
) -> list[Outcome]:
    """The candidates that no other candidate dominates, by rising cost: of the first cost, then the others.

    With one cost that is by rising height too. Of several with the same numbers the one that finished first
    stays.

    Args:
        unsure: those too that only a latency within its own interval keeps there; they are what is worth another look.
    """
    pool = candidates(outcomes, tradeoff)
    rows = points(pool, tradeoff)
    members = [
        (tuple(row), outcome) for outcome, row, stays in zip(pool, rows, nondominated(rows), strict=True) if stays
    ]
    first: dict[tuple[float, ...], Outcome] = {}
    for row, outcome in sorted(members, key=lambda member: (member[0], member[1].finished, member[1].id)):
        first.setdefault(row, outcome)
    if unsure or "latency" not in tradeoff.costs:
        return list(first.values())
    return _not_by_luck(list(first.items()), tradeoff)


def _not_by_luck(members: Sequence[tuple[tuple[float, ...], Outcome]], tradeoff: Tradeoff) -> list[Outcome]:
    """The members but those that only a latency within its own interval keeps on the front.

    Another member is as good in all else and better in something, and what it takes may be as little. As every such
    step leads to one that is better in the rest, or as good and faster, no two members put each other out.
    """
    column = tradeoff.costs.index("latency")

    def puts_out(other: tuple[tuple[float, ...], Outcome], member: tuple[tuple[float, ...], Outcome]) -> bool:
        mine, its = (tuple(row[i] for i in range(len(row)) if i != column) for row, _ in (member, other))
        as_good = all(a <= b for a, b in zip(its, mine, strict=True))
        better = its != mine or other[0][column] < member[0][column]
        return as_good and better and _fastest(other[1]) <= _slowest(member[1])

    return [member[1] for member in members if not any(puts_out(other, member) for other in members)]


def _fastest(outcome: Outcome) -> float:
    """The lower end of what its latency is known to be; of a candidate by latency, which therefore has one."""
    return (outcome.latency_ratio or 0.0) if outcome.latency_low is None else outcome.latency_low


def _slowest(outcome: Outcome) -> float:
    """The upper end of it."""
    return (outcome.latency_ratio or 0.0) if outcome.latency_high is None else outcome.latency_high


def hypervolume_over_time(outcomes: Iterable[Outcome], tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> NDArray[np.float64]:
    """(n, 2) of (seconds since the study began, hypervolume of the front so far): a row per finished candidate."""
    pool = sorted(candidates(outcomes, tradeoff), key=lambda o: (o.finished, o.id))
    found = points(pool, tradeoff)
    rows = np.zeros((len(pool), 2))
    so_far, value = found[:0], 0.0
    for index, (outcome, point) in enumerate(zip(pool, found, strict=True)):
        if not (so_far <= point).all(axis=1).any():
            so_far = np.vstack([so_far[~(point <= so_far).all(axis=1)], point])
            value = hypervolume(so_far, reference(tradeoff))
        rows[index] = outcome.finished, value
    return rows


def knee(members: Sequence[Outcome], tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> Outcome:
    """The member of a front that lies farthest from the line between the front's two ends, on its better side.

    All objectives are first scaled to [0, 1] over the front (Das 1999, "On characterizing the knee of the Pareto
    curve"); with three of them the line is the plane through the three corners where one is worst and the others best.
    Where no member lies on the better side, or two are equally far, the better one is taken.

    Raises:
        InputError: the front is empty.
    """
    _expect_members(members, tradeoff)
    rows = points(members, tradeoff)
    low, span = rows.min(axis=0), np.ptp(rows, axis=0)
    scaled = (rows - low) / np.where(span > 0, span, 1.0)
    farthest = (1 - scaled.sum(axis=1)).round(12)
    return members[max(range(len(members)), key=lambda i: (farthest[i], -rows[i, -1]))]


def pick(members: Sequence[Outcome], limits: Mapping[str, float], tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> Outcome:
    """The member of a front to hand over: the best one within the limits; if the metric alone is limited, the cheapest
    one that reaches it.

    Args:
        members: as `front` returns them; the dense model is never among them, so it is never picked.
        limits: name -> number: `metric` at least as good, any of `Outcome.costs` at most.
        tradeoff: of the study; the first of its costs says what is cheapest.

    Raises:
        InputError: no limit is given, the front is empty, a limit is on what was not measured, or no member fits (the
            nearest one is named).
    """
    if not limits:
        raise InputError("nothing to pick by", allowed="a largest cost, a metric to reach or several")
    _expect_members(members, tradeoff)
    over = [_excess_over_limits(member, limits, tradeoff) for member in members]
    fitting = [index for index, excess in enumerate(over) if excess == 0]
    if not fitting:
        raise _nothing_fits(members[int(np.argmin(over))], limits, tradeoff)
    rows = [tuple(row) for row in points(members, tradeoff)]
    if set(limits) == {"metric"}:
        return members[min(fitting, key=lambda i: rows[i])]
    return members[min(fitting, key=lambda i: (rows[i][-1], *rows[i]))]


def _crowding_distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per row the sum over columns of the distance between its two neighbours, in spans; ends are infinitely alone."""
    alone = np.zeros(len(rows))
    for column in rows.T:
        order = np.argsort(column, kind="stable")
        gaps = np.full(len(rows), np.inf)
        span = column[order[-1]] - column[order[0]]
        gaps[1:-1] = (column[order[2:]] - column[order[:-2]]) / (span or 1.0)
        alone[order] += gaps
    return alone


def _as_rows(points: ArrayLike, columns: int | None = None) -> NDArray[np.float64]:
    rows = np.asarray(points, dtype=np.float64)
    if rows.size == 0 and rows.ndim < 2:
        return np.empty((0, columns or 1))
    if rows.ndim != 2 or (columns is not None and rows.shape[1] != columns):
        raise InputError(f"expected one row per point, found shape {rows.shape}", allowed=f"(n, {columns or 'd'})")
    return rows


def _dominated_volume(rows: NDArray[np.float64], limit: NDArray[np.float64]) -> float:
    """`rows` are all better than `limit` in every column."""
    if len(rows) == 0:
        return 0.0
    if len(limit) == 2:
        return _dominated_area(rows, limit)
    rows = rows[np.argsort(rows[:, -1])]
    heights = np.diff(rows[:, -1], append=limit[-1])
    # Between two neighbouring values of the last column exactly the rows up to the lower one dominate.
    return float(sum(h * _dominated_volume(rows[: n + 1, :-1], limit[:-1]) for n, h in enumerate(heights) if h > 0))


def _dominated_area(rows: NDArray[np.float64], limit: NDArray[np.float64]) -> float:
    rows = rows[np.argsort(rows[:, 0])]
    widths = np.diff(rows[:, 0], append=limit[0])
    heights = limit[1] - np.minimum.accumulate(rows[:, 1])
    return float(widths @ heights)


def _expect_members(members: Sequence[Outcome], tradeoff: Tradeoff) -> None:
    if not members:
        reached = "" if tradeoff.limit is None else f" with {tradeoff.metric.wish(tradeoff.limit)}"
        raise InputError(f"the front is empty: no trial that pruned something completed{reached}")


def _excess_over_limits(member: Outcome, limits: Mapping[str, float], tradeoff: Tradeoff) -> float:
    """By how much a member breaks the limits, summed; milliseconds as a share of their limit, a metric by height."""
    total = 0.0
    for name, limit in limits.items():
        value = member.metric if name == "metric" else member.costs[name]
        if value is None:
            what = f"{_logged_name(name, tradeoff)} of trial {member.id} was not measured"
            raise InputError(what, allowed="a study that searched for it")
        heights = tradeoff.metric.height
        over = max(heights(limit) - heights(value) if name == "metric" else value - limit, 0.0)
        total += over / limit if name == "latency_ms" else over
    return total


def _nothing_fits(nearest: Outcome, limits: Mapping[str, float], tradeoff: Tradeoff) -> InputError:
    metric = tradeoff.metric
    wishes = [
        metric.wish(limit) if name == "metric" else f"{_logged_name(name, tradeoff)} <= {limit:g}"
        for name, limit in limits.items()
    ]
    shown = [name for name in limits if name != "metric"] or list(tradeoff.costs[:1])
    found = ", ".join(f"{_logged_name(name, tradeoff)} {nearest.costs[name]:.4g}" for name in shown)
    named = f"trial {nearest.id} with {found} and {metric.name} {nearest.metric:.4g}"
    return InputError(f"no model on the front has {' and '.join(wishes)}; the nearest is {named}")


def _logged_name(name: str, tradeoff: Tradeoff) -> str:
    """A limit's name as the logs have it."""
    if name == "metric":
        return tradeoff.metric.name
    return name if name == "latency_ms" else f"{name}_ratio"
