"""Fronts by hand and against brute force: everything that `pareto` says of points and of outcomes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe
from autoprune.study import pareto
from autoprune.study.outcome import Outcome
from autoprune.study.tradeoff import Tradeoff

NAN = float("nan")
COARSE = st.integers(0, 7).map(lambda i: i / 7)  # a coarse grid, so that equal columns and equal points are common
POINTS_2D = st.lists(st.tuples(COARSE, COARSE), max_size=13)
POINTS_3D = st.lists(st.tuples(COARSE, COARSE, COARSE), max_size=9)


def outcome(
    number: int, flops: float | None, accuracy: float | None, *, method: str = "l1", **fields: object
) -> Outcome:
    status = str(fields.pop("status", "completed"))
    recipe = Recipe(method=MethodChoice(name=method), seed=number)
    return Outcome(id=number, recipe=recipe, status=status, flops_ratio=flops, metric=accuracy, **fields)  # type: ignore[arg-type]


def ids(outcomes: Sequence[Outcome]) -> list[int]:
    return [o.id for o in outcomes]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def glue_hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """The area of (accuracy, cost ratio) as a plain loop over sorted strips sums it."""
    area = best = 0.0
    front = sorted(points, key=lambda p: p[1])
    for (accuracy, cost), following in zip(front, [c for _, c in front[1:]] + [1.0], strict=False):
        best = max(best, accuracy)
        area += best * max(0.0, min(following, 1.0) - min(cost, 1.0))
    return area


def grid_volume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The dominated volume by counting cells of the grid through all coordinates: slow and without any cleverness."""
    total = 0.0
    axes = [sorted({p[d] for p in points} | {reference[d]}) for d in range(len(reference))]
    cells = np.ndindex(*[len(axis) - 1 for axis in axes])
    for cell in cells:
        low = [axis[i] for axis, i in zip(axes, cell, strict=True)]
        high = [axis[i + 1] for axis, i in zip(axes, cell, strict=True)]
        inside = all(h <= r for h, r in zip(high, reference, strict=True))
        if inside and any(all(x <= y for x, y in zip(p, low, strict=True)) for p in points):
            total += float(np.prod(np.subtract(high, low)))
    return total


class TestNondominated:
    def test_by_hand(self) -> None:
        points = [(3, 5), (1, 7), (2, 7), (3, 4), (5, 3), (4, 4)]

        assert pareto.nondominated(points).tolist() == [False, True, False, True, True, False]

    def test_equal_points_stay_together(self) -> None:
        assert pareto.nondominated([(1, 2), (1, 2), (2, 2)]).tolist() == [True, True, False]

    def test_nan_is_out_and_dominates_nothing(self) -> None:
        assert pareto.nondominated([(NAN, 0), (0, NAN), (3, 3)]).tolist() == [False, False, True]

    def test_infinity_is_a_number(self) -> None:
        assert pareto.nondominated([(np.inf, 1), (-np.inf, 2), (0, 2)]).tolist() == [True, True, False]

    def test_no_points(self) -> None:
        assert pareto.nondominated([]).tolist() == []

    def test_refuses_a_flat_list(self) -> None:
        with pytest.raises(InputError, match=r"found shape \(3,\).*allowed: \(n, d\)"):
            pareto.nondominated([1.0, 2.0, 3.0])

    @given(st.one_of(POINTS_2D, POINTS_3D))
    def test_agrees_with_the_definition(self, points: list[tuple[float, ...]]) -> None:
        expected = [not any(dominates(q, p) for q in points) for p in points]

        assert pareto.nondominated(points).tolist() == expected


class TestMeanHeight:
    def test_by_hand(self) -> None:
        # From 0.1 to 0.3 nothing is that small, from 0.3 to 0.7 the best is 0.5, from there on 0.8.
        assert pareto.mean_height([(0.7, -0.8), (0.3, -0.5)]) == pytest.approx((0.4 * 0.5 + 0.3 * 0.8) / 0.9)

    def test_what_is_smaller_than_the_range_counts_from_its_beginning_on(self) -> None:
        assert pareto.mean_height([(0.05, -0.3), (0.07, -0.4), (0.55, -0.8)]) == pytest.approx(0.5 * (0.4 + 0.8))

    def test_from_another_beginning(self) -> None:
        assert pareto.mean_height([(0.25, -0.5)], low=0.0) == pytest.approx(0.75 * 0.5)
        assert pareto.mean_height([(0.25, -0.5)], low=0.5) == 0.5

    def test_a_larger_model_that_is_worse_adds_nothing(self) -> None:
        assert pareto.mean_height([(0.1, -0.7), (0.3, -0.5)]) == pytest.approx(0.7)

    def test_what_is_as_large_as_the_dense_model_adds_nothing(self) -> None:
        assert pareto.mean_height([(1.0, -0.9), (1.3, -0.9), (NAN, -0.9), (0.5, NAN)]) == 0.0
        assert pareto.mean_height([]) == 0.0

    @pytest.mark.parametrize("low", [-0.1, 1.0])
    def test_refuses_a_range_that_is_none(self, low: float) -> None:
        with pytest.raises(InputError, match=r"low.*allowed: \[0, 1\)"):
            pareto.mean_height([(0.5, -0.5)], low=low)

    @given(POINTS_2D)
    def test_agrees_with_the_mean_over_a_grid(self, points: list[tuple[float, float]]) -> None:
        # Costs are multiples of 1/7, so that the step function is constant between two of them.
        rows = [(cost, -accuracy) for cost, accuracy in points]
        heights = [max((a for c, a in points if c <= k / 7), default=0.0) for k in range(1, 7)]

        assert pareto.mean_height(rows, low=1 / 7) == pytest.approx(sum(heights) / 6, abs=1e-12)


class TestHypervolume:
    def test_by_hand(self) -> None:
        # (0.25, 0.5): 0.75 wide, 0.5 high; (0.5, 0.75) adds 0.5 wide, 0.25 high.
        assert pareto.hypervolume([(0.5, -0.75), (0.25, -0.5)]) == pytest.approx(0.375 + 0.125, abs=1e-15)

    def test_three_columns_by_hand(self) -> None:
        # Boxes of 3*5*7 and 5*3*7 below (11, 11, 11) share 3*3*7.
        assert pareto.hypervolume([(8, 6, 4), (6, 8, 4)], (11, 11, 11)) == pytest.approx(
            3 * 5 * 7 + 5 * 3 * 7 - 3 * 3 * 7
        )

    def test_points_beyond_the_reference_add_nothing(self) -> None:
        assert pareto.hypervolume([(0.5, -0.5), (1.5, -0.9), (0.1, 0.0), (NAN, -1.0)]) == 0.25

    def test_nothing_dominates_nothing(self) -> None:
        assert pareto.hypervolume([]) == 0.0

    def test_refuses_another_number_of_columns(self) -> None:
        with pytest.raises(InputError, match=r"found shape \(1, 3\).*allowed: \(n, 2\)"):
            pareto.hypervolume([(0.1, 0.2, 0.3)])

    @given(POINTS_2D)
    def test_two_columns_agree_with_the_grid(self, points: list[tuple[float, float]]) -> None:
        assert pareto.hypervolume(points, (0.9, 0.8)) == pytest.approx(grid_volume(points, (0.9, 0.8)), abs=1e-12)

    @given(POINTS_3D)
    def test_three_columns_agree_with_the_grid(self, points: list[tuple[float, float, float]]) -> None:
        reference = (0.9, 0.8, 1.1)

        assert pareto.hypervolume(points, reference) == pytest.approx(grid_volume(points, reference), abs=1e-12)

    @given(st.lists(st.tuples(st.floats(0, 1.25), st.floats(0, 1)), max_size=29))
    def test_agrees_with_the_strips_formula(self, points: list[tuple[float, float]]) -> None:
        ours = pareto.hypervolume([(cost, -accuracy) for cost, accuracy in points])

        assert ours == pytest.approx(glue_hypervolume([(accuracy, cost) for cost, accuracy in points]), abs=1e-12)

    @given(POINTS_2D)
    def test_only_the_front_counts(self, points: list[tuple[float, float]]) -> None:
        rows = np.array(points).reshape(-1, 2)

        assert pareto.hypervolume(rows[pareto.nondominated(rows)], (1, 1)) == pytest.approx(
            pareto.hypervolume(rows, (1, 1))
        )


class TestFront:
    def test_sorted_by_flops(self) -> None:
        trials = [outcome(1, 0.7, 0.91), outcome(2, 0.3, 0.83), outcome(3, 0.5, 0.82), outcome(4, 0.5, 0.89)]

        assert ids(pareto.front(trials)) == [2, 4, 1]

    def test_only_completed_trials(self) -> None:
        trials = [
            outcome(1, 0.3, None, status="failed"),
            outcome(2, 0.3, 0.99, status="stopped"),
            outcome(3, None, 0.99),
            outcome(4, 0.5, None),
            outcome(5, 0.5, 0.79),
        ]

        assert ids(pareto.front(trials)) == [5]

    def test_dense_is_the_reference_not_a_member(self) -> None:
        trials = [outcome(1, 1.0, 0.93, method="dense", control=True), outcome(2, 0.5, 0.87)]

        assert ids(pareto.front(trials)) == [2]

    def test_the_random_control_may_win(self) -> None:
        trials = [outcome(1, 0.5, 0.93, method="random", control=True), outcome(2, 0.5, 0.87)]

        assert ids(pareto.front(trials)) == [1]

    def test_of_equals_the_first_to_finish(self) -> None:
        trials = [
            outcome(1, 0.5, 0.87, finished=17.0),
            outcome(2, 0.5, 0.87, finished=13.0),
            outcome(3, 0.5, 0.87, finished=13.0),
        ]

        assert ids(pareto.front(trials)) == [2]

    def test_nothing_completed(self) -> None:
        assert pareto.front([]) == []

    @given(POINTS_2D)
    def test_accuracy_rises_with_flops(self, points: list[tuple[float, float]]) -> None:
        members = pareto.front(outcome(i, flops, accuracy) for i, (flops, accuracy) in enumerate(points))

        pairs = [(m.flops_ratio or 0.0, m.accuracy or 0.0) for m in members]
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
        assert bool(members) == bool(points)


class TestHypervolumeOverTime:
    def test_by_hand(self) -> None:
        trials = [
            outcome(1, 0.5, 0.75, finished=30.0),
            outcome(2, 0.25, 0.5, finished=10.0),
            outcome(3, 0.75, 0.5, finished=20.0),
            outcome(4, 1.0, 0.99, finished=5.0, method="dense"),
            outcome(5, None, None, finished=7.0, status="failed"),
        ]

        assert pareto.hypervolume_over_time(trials).tolist() == [[10.0, 0.375], [20.0, 0.375], [30.0, 0.5]]

    def test_nothing_completed(self) -> None:
        assert pareto.hypervolume_over_time([]).shape == (0, 2)

    @given(POINTS_2D)
    def test_never_falls_and_ends_at_the_hypervolume(self, points: list[tuple[float, float]]) -> None:
        trials = [outcome(i, flops, accuracy, finished=float(-i)) for i, (flops, accuracy) in enumerate(points)]

        values = pareto.hypervolume_over_time(trials)[:, 1]

        assert (np.diff(values) >= -1e-15).all()
        assert values[-1:].sum() == pytest.approx(pareto.hypervolume(pareto.points(trials)))


class TestKnee:
    def test_by_hand(self) -> None:
        # Scaled to the ends (0.2, 0.5) and (0.8, 0.9): trial 2 lies at (1/3, 1/4), 5/12 below the line; trial 3 5/24.
        members = [outcome(1, 0.2, 0.5), outcome(2, 0.4, 0.8), outcome(3, 0.6, 0.85), outcome(4, 0.8, 0.9)]

        assert pareto.knee(members).id == 2

    def test_a_straight_front_gives_its_most_accurate_end(self) -> None:
        assert pareto.knee([outcome(1, 0.2, 0.5), outcome(2, 0.5, 0.7), outcome(3, 0.8, 0.9)]).id == 3

    def test_one_member(self) -> None:
        assert pareto.knee([outcome(7, 0.4, 0.8)]).id == 7

    def test_empty(self) -> None:
        with pytest.raises(InputError, match="the front is empty"):
            pareto.knee([])


class TestPick:
    members = (outcome(11, 0.2, 0.71), outcome(13, 0.45, 0.83), outcome(17, 0.7, 0.91))

    def test_most_accurate_within_the_flops(self) -> None:
        assert pareto.pick(self.members, {"flops": 0.5}).id == 13

    def test_the_limit_itself_is_within(self) -> None:
        assert pareto.pick(self.members, {"flops": 0.7}).id == 17

    def test_cheapest_that_reaches_the_accuracy(self) -> None:
        assert pareto.pick(self.members, {"metric": 0.72}).id == 13

    def test_most_accurate_within_both(self) -> None:
        assert pareto.pick(self.members, {"flops": 0.99, "metric": 0.5}).id == 17

    def test_too_small_a_budget_names_the_nearest(self) -> None:
        with pytest.raises(InputError) as caught:
            pareto.pick(self.members, {"flops": 0.1})

        wish, nearest = str(caught.value).split("; ")
        assert wish == "no model on the front has flops_ratio <= 0.1"
        assert nearest == "the nearest is trial 11 with flops_ratio 0.2 and accuracy 0.71"

    def test_both_limits_name_the_nearest(self) -> None:
        # Trial 13 is 0.05 over the budget, trial 11 is 0.11 below the accuracy, trial 17 is 0.3 over the budget.
        with pytest.raises(InputError, match=r"flops_ratio <= 0.4 and accuracy >= 0.82; the nearest is trial 13"):
            pareto.pick(self.members, {"flops": 0.4, "metric": 0.82})

    def test_dense_is_no_answer_to_a_wish_that_nothing_else_meets(self) -> None:
        trials = [*self.members, outcome(1, 1.0, 0.95, method="dense", control=True)]

        with pytest.raises(InputError, match="nearest is trial 17"):
            pareto.pick(pareto.front(trials), {"metric": 0.94})

    def test_no_limit(self) -> None:
        with pytest.raises(
            InputError, match="nothing to pick by; allowed: a largest cost, a metric to reach or several"
        ):
            pareto.pick(self.members, {})

    def test_empty(self) -> None:
        with pytest.raises(InputError, match="the front is empty"):
            pareto.pick([], {"flops": 0.5})


COSTLY = Tradeoff(costs=("flops", "latency"))
BY_TIME = Tradeoff(costs=("latency",))


def timed(number: int, flops: float, latency: float | None, accuracy: float, **fields: object) -> Outcome:
    """As fast as the dense model's 20 ms times its latency ratio."""
    milliseconds = None if latency is None else 20 * latency
    return outcome(number, flops, accuracy, latency_ratio=latency, latency_ms=milliseconds, **fields)


class TestThreeObjectives:
    members = (timed(11, 0.25, 0.75, 0.5), timed(13, 0.5, 0.25, 0.5), timed(17, 0.75, 0.5, 0.75))

    def test_points_hold_the_costs_in_the_order_of_the_objectives(self) -> None:
        assert pareto.points(self.members[:1], COSTLY).tolist() == [[0.25, 0.75, -0.5]]
        assert pareto.points(self.members[:1], Tradeoff(costs=("latency", "flops"))).tolist() == [[0.75, 0.25, -0.5]]
        assert pareto.reference(COSTLY) == (1.0, 1.0, 0.0)

    def test_who_is_beaten_in_two_may_be_on_a_front_of_three(self) -> None:
        # 13 costs more FLOPs than 11 for the same accuracy, but less time; 19 is beaten by 11 in all three.
        trials = [*self.members, timed(19, 0.25, 0.8, 0.4)]

        assert ids(pareto.front(trials, COSTLY)) == [11, 13, 17]
        assert ids(pareto.front(trials)) == [11, 17]
        assert ids(pareto.front(trials, BY_TIME)) == [13, 17]

    def test_who_was_not_timed_is_on_no_front_of_times(self) -> None:
        assert ids(pareto.front([timed(3, 0.25, None, 0.9), *self.members], COSTLY)) == [11, 13, 17]

    def test_hypervolume_by_hand(self) -> None:
        # Against (1, 1, 0): 11 fills 3/4 * 1/4 * 1/2, 13 fills 1/2 * 3/4 * 1/2, 17 fills 1/4 * 1/2 * 3/4. Shared:
        # 11 and 13 1/2 * 1/4 * 1/2, 11 and 17 1/4 * 1/4 * 1/2, 13 and 17 1/4 * 1/2 * 1/2, all 1/4 * 1/4 * 1/2.
        expected = (3 / 32 + 6 / 32 + 3 / 32) - (2 / 32 + 1 / 32 + 2 / 32) + 1 / 32
        found = pareto.points(self.members, COSTLY)

        assert pareto.hypervolume(found, pareto.reference(COSTLY)) == pytest.approx(expected, abs=1e-15)
        assert pareto.hypervolume_over_time(self.members, COSTLY)[-1, 1] == pytest.approx(expected, abs=1e-15)

    def test_slower_than_the_dense_model_is_no_gain(self) -> None:
        assert pareto.hypervolume_over_time([timed(3, 0.5, 1.25, 0.9)], COSTLY).tolist() == [[0.0, 0.0]]

    def test_knee_by_hand(self) -> None:
        # Scaled to [0, 1]: 11 (0, 1, 1), 13 (1/2, 0, 1), 17 (1, 1/2, 0): both of 13 and 17 sum to 3/2, 11 to 2;
        # of two that are equally far the more accurate one.
        assert pareto.knee(self.members, COSTLY).id == 17

    @pytest.mark.parametrize(
        ("limits", "chosen"),
        [
            ({"latency_ms": 10.0}, 17),
            ({"latency_ms": 9.9}, 13),
            ({"latency": 0.75}, 17),
            ({"flops": 0.5}, 11),  # as accurate as 13, and cheaper in the first cost
            ({"flops": 0.5, "latency": 0.3}, 13),
            ({"metric": 0.5}, 11),
        ],
    )
    def test_picks(self, limits: dict[str, float], chosen: int) -> None:
        assert pareto.pick(self.members, limits, COSTLY).id == chosen

    def test_a_time_that_nothing_keeps_names_the_fastest(self) -> None:
        with pytest.raises(InputError, match=r"has latency_ms <= 4; the nearest is trial 13 with latency_ms 5 and acc"):
            pareto.pick(self.members, {"latency_ms": 4.0}, COSTLY)

    def test_an_accuracy_that_nothing_reaches_is_said_with_the_first_cost(self) -> None:
        with pytest.raises(InputError, match=r"nearest is trial 17 with latency_ratio 0.5 and accuracy 0.75"):
            pareto.pick(self.members, {"metric": 0.9}, BY_TIME)

    def test_no_picks_by_what_was_not_measured(self) -> None:
        with pytest.raises(InputError, match="latency_ms of trial 1 was not measured"):
            pareto.pick([outcome(1, 0.5, 0.5)], {"latency_ms": 4.0})


def test_ranking_goes_front_by_front_and_in_each_from_the_most_isolated():
    points = [[3, 3], [1, 7], [2, 4], [7, 1], [3, 2], [2, 5], [8, 8], [np.nan, 0]]
    # front 0: 1 (1,7), 2 (2,4), 4 (3,2), 3 (7,1); spans 6 and 6: 2 has (3-1)/6 + (7-2)/6 = 7/6, 4 has 5/6 + 3/6 = 8/6
    assert pareto.ranked(points).tolist() == [1, 3, 4, 2, 0, 5, 6, 7]
    assert pareto.ranked(np.zeros((0, 2))).tolist() == []
    assert pareto.ranked([[1, 1], [1, 1], [1, 1]]).tolist() == [0, 2, 1]


def test_ranking_is_a_permutation_and_never_puts_a_point_before_one_that_dominates_it():
    points = np.random.default_rng(3).integers(0, 9, (101, 3)).astype(float)
    order = pareto.ranked(points)

    assert sorted(order) == list(range(101))
    place = np.argsort(order)
    for one in range(101):
        worse = (points[one] <= points).all(1) & (points[one] < points).any(1)
        assert (place[one] < place[worse]).all()


class TestLatencyWithAnInterval:
    """Latency against accuracy; the front by numbers alone would hold every member here."""

    def front(self, *rows: tuple[int, float, float, float, float]) -> list[int]:
        """Numbers on the front of (number, accuracy, latency, low, high)."""
        members = [
            outcome(
                number, 0.5, accuracy, latency_ratio=latency, latency_ms=latency, latency_low=low, latency_high=high
            )
            for number, accuracy, latency, low, high in rows
        ]
        return [member.id for member in pareto.front(members, Tradeoff(costs=("latency",)))]

    def test_who_is_faster_by_less_than_the_interval_makes_way_for_who_is_better(self) -> None:
        assert self.front((1, 0.75, 0.40, 0.35, 0.52), (2, 0.8125, 0.50, 0.48, 0.53)) == [2]

    def test_both_are_worth_another_look(self) -> None:
        interval = {"latency_low": 0.35, "latency_high": 0.6}
        members = [
            outcome(n, 0.5, a, latency_ratio=t, latency_ms=t, **interval)
            for n, a, t in ((1, 0.75, 0.4), (2, 0.8125, 0.5))
        ]
        found = pareto.front(members, Tradeoff(costs=("latency",)), unsure=True)

        assert [member.id for member in found] == [1, 2]

    def test_who_is_faster_by_more_stays(self) -> None:
        assert self.front((1, 0.75, 0.40, 0.35, 0.47), (2, 0.8125, 0.50, 0.48, 0.53)) == [1, 2]

    def test_equally_good_ones_leave_one(self) -> None:
        assert self.front((1, 0.75, 0.40, 0.30, 0.60), (2, 0.75, 0.50, 0.30, 0.60)) == [1]

    def test_without_intervals_it_is_the_front_as_ever(self) -> None:
        members = [outcome(n, 0.5, a, latency_ratio=t, latency_ms=t) for n, a, t in ((1, 0.75, 0.4), (2, 0.8125, 0.5))]

        assert [member.id for member in pareto.front(members, Tradeoff(costs=("latency",)))] == [1, 2]

    def test_a_second_cost_that_is_lower_keeps_a_member(self) -> None:
        low = {"latency_low": 0.3, "latency_high": 0.6}
        members = [
            outcome(1, 0.25, 0.75, latency_ratio=0.4, latency_ms=1.0, **low),
            outcome(2, 0.5, 0.8125, latency_ratio=0.5, latency_ms=1.0, **low),
        ]

        assert [m.id for m in pareto.front(members, Tradeoff(costs=("latency", "flops")))] == [1, 2]
