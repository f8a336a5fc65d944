"""Which trials are worth keeping: the front of accuracy against FLOPs, its hypervolume, its knee, the pick for export.

Arrays of points hold one row per point and one column per objective, and every objective is minimised. Outcomes
become the points (flops_ratio, -accuracy).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoprune.errors import InputError
from autoprune.recipe import Recipe

REFERENCE = (1.0, 0.0)
"""What the hypervolume of outcomes is measured against: flops_ratio 1 and accuracy 0."""

DENSE = "dense"
"""The method that removes nothing; its outcomes are what a front is compared with, and never its members."""


class Measured(Protocol):
    """What this file needs to know of an outcome; `results.Outcome` is one."""

    @property
    def id(self) -> int:
        """The trial's number."""

    @property
    def recipe(self) -> Recipe:
        """What was tried."""

    @property
    def completed(self) -> bool:
        """Whether it ran to its end."""

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]."""

    @property
    def flops_ratio(self) -> float | None:
        """Relative to the dense model."""

    @property
    def finished(self) -> float:
        """Seconds since the study began."""


M = TypeVar("M", bound=Measured)


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
    # In lexicographic order a row comes after every row that dominates it, so one comparison with those kept suffices.
    order = known[np.lexsort(rows[known].T[::-1])]
    kept = np.empty_like(rows)
    count = 0
    for index in order:
        front, row = kept[:count], rows[index]
        if not ((front <= row).all(axis=1) & (front < row).any(axis=1)).any():
            kept[count] = row
            count += 1
            mask[index] = True
    return mask


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
        alone = _crowding(rows[front_now])
        order = np.concatenate([order, front_now[np.argsort(-alone, kind="stable")]])
        left = left[~best] if best.any() else left[:0]
    return order


def hypervolume(points: ArrayLike, reference: Sequence[float] = REFERENCE) -> float:
    """Volume of the space that the points dominate, bounded by `reference`; exact; all columns minimised.

    Rows with a NaN, and rows that are not better than the reference in every column, add nothing. Two columns take
    O(n log n); every further column is cut into at most n slices.

    Args:
        points: (n, d) with d >= 2; for outcomes (flops_ratio, -accuracy).
        reference: d numbers.
    """
    limit = np.asarray(reference, dtype=np.float64)
    rows = _as_rows(points, columns=len(limit))
    return _volume(rows[(rows < limit).all(axis=1)], limit)


def objectives(outcomes: Iterable[Measured]) -> NDArray[np.float64]:
    """(n, 2) of (flops_ratio, -accuracy); NaN where an outcome did not complete or has no number."""
    nan = float("nan")

    def row(outcome: Measured) -> tuple[float, float]:
        if not outcome.completed or outcome.flops_ratio is None or outcome.accuracy is None:
            return nan, nan
        return outcome.flops_ratio, -outcome.accuracy

    return np.array([row(outcome) for outcome in outcomes], dtype=np.float64).reshape(-1, 2)


def candidates(outcomes: Iterable[M]) -> list[M]:
    """The outcomes that may be on a front: completed, with both numbers, and pruned at all.

    The `random` control is one of them: a randomly pruned model that nothing beats is a result, and worth seeing. The
    `dense` control is not.
    """
    known = [outcome for outcome in outcomes if outcome.recipe.method.name != DENSE]
    missing = np.isnan(objectives(known))
    return [outcome for outcome, numbers in zip(known, missing, strict=True) if not numbers.any()]


def front(outcomes: Iterable[M]) -> list[M]:
    """The candidates that no other candidate dominates, by rising flops_ratio (and so by rising accuracy).

    Of several with the same two numbers the one that finished first stays.
    """
    pool = candidates(outcomes)
    members = [outcome for outcome, stays in zip(pool, nondominated(objectives(pool)), strict=True) if stays]
    first: dict[tuple[float | None, float | None], M] = {}
    for outcome in sorted(members, key=lambda o: (o.flops_ratio or 0.0, o.finished, o.id)):
        first.setdefault((outcome.flops_ratio, outcome.accuracy), outcome)
    return list(first.values())


def hypervolume_over_time(outcomes: Iterable[M]) -> NDArray[np.float64]:
    """(n, 2) of (seconds since the study began, hypervolume of the front so far): a row per finished candidate."""
    pool = sorted(candidates(outcomes), key=lambda o: (o.finished, o.id))
    points = objectives(pool)
    rows = np.zeros((len(pool), 2))
    so_far, value = points[:0], 0.0
    for index, (outcome, point) in enumerate(zip(pool, points, strict=True)):
        if not (so_far <= point).all(axis=1).any():
            so_far = np.vstack([so_far[~(point <= so_far).all(axis=1)], point])
            value = hypervolume(so_far)
        rows[index] = outcome.finished, value
    return rows


def knee(members: Sequence[M]) -> M:
    """The member of a front that lies farthest from the line between the front's two ends, on its better side.

    Both objectives are first scaled to [0, 1] over the front (Das 1999, "On characterizing the knee of the Pareto
    curve"). Where no member lies on the better side, or two are equally far, the more accurate one is taken.

    Raises:
        InputError: the front is empty.
    """
    _expect_members(members)
    points = objectives(members)
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    scaled = (points - low) / np.where(span > 0, span, 1.0)
    farthest = (1 - scaled.sum(axis=1)).round(12)
    return members[max(range(len(members)), key=lambda i: (farthest[i], -points[i, 1]))]


def pick(members: Sequence[M], max_flops: float | None = None, min_accuracy: float | None = None) -> M:
    """The member of a front to hand over: the most accurate one within `max_flops`, else the cheapest one that reaches
    `min_accuracy`. With both limits it is the most accurate one that keeps both.

    Args:
        members: as `front` returns them; the dense model is never among them, so it is never picked.
        max_flops: largest flops_ratio.
        min_accuracy: smallest accuracy, in [0, 1].

    Raises:
        InputError: no limit is given, the front is empty, or no member fits (the nearest one is named).
    """
    if max_flops is None and min_accuracy is None:
        raise InputError("nothing to pick by", allowed="max_flops, min_accuracy or both")
    _expect_members(members)
    points = objectives(members)
    over = np.maximum(points - _limits(max_flops, min_accuracy), 0.0).sum(axis=1)
    fitting = [member for member, excess in zip(members, over, strict=True) if excess == 0]
    if not fitting:
        raise _nothing_fits(members[int(over.argmin())], max_flops, min_accuracy)
    if max_flops is None:
        return min(fitting, key=lambda o: (o.flops_ratio or 0.0, -(o.accuracy or 0.0)))
    return max(fitting, key=lambda o: (o.accuracy or 0.0, -(o.flops_ratio or 0.0)))


def _crowding(rows: NDArray[np.float64]) -> NDArray[np.float64]:
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


def _volume(rows: NDArray[np.float64], limit: NDArray[np.float64]) -> float:
    """`rows` are all better than `limit` in every column."""
    if len(rows) == 0:
        return 0.0
    if len(limit) == 2:
        return _area(rows, limit)
    rows = rows[np.argsort(rows[:, -1])]
    heights = np.diff(rows[:, -1], append=limit[-1])
    # Between two neighbouring values of the last column exactly the rows up to the lower one dominate.
    return float(sum(h * _volume(rows[: n + 1, :-1], limit[:-1]) for n, h in enumerate(heights) if h > 0))


def _area(rows: NDArray[np.float64], limit: NDArray[np.float64]) -> float:
    rows = rows[np.argsort(rows[:, 0])]
    widths = np.diff(rows[:, 0], append=limit[0])
    heights = limit[1] - np.minimum.accumulate(rows[:, 1])
    return float(widths @ heights)


def _expect_members(members: Sequence[M]) -> None:
    if not members:
        raise InputError("the front is empty: no trial that pruned something completed")


def _limits(max_flops: float | None, min_accuracy: float | None) -> NDArray[np.float64]:
    """The two limits as a point: what a member may have at most, everything minimised."""
    nothing = float("inf")
    return np.array([nothing if max_flops is None else max_flops, nothing if min_accuracy is None else -min_accuracy])


def _nothing_fits(nearest: Measured, max_flops: float | None, min_accuracy: float | None) -> InputError:
    wishes = [] if max_flops is None else [f"flops_ratio <= {max_flops:g}"]
    wishes += [] if min_accuracy is None else [f"accuracy >= {min_accuracy:g}"]
    found = f"trial {nearest.id} with flops_ratio {nearest.flops_ratio:.4g} and accuracy {nearest.accuracy:.4g}"
    return InputError(f"no model on the front has {' and '.join(wishes)}; the nearest is {found}")
