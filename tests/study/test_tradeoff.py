"""Fronts of a metric to minimise, by hand, and the limit that keeps models off a front."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe
from autoprune.study import pareto
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome
from autoprune.study.tradeoff import Tradeoff


def outcome(number: int, flops: float, metric: float | None, status: str = "completed") -> Outcome:
    recipe = Recipe(method=MethodChoice(name="l1"), seed=number)
    return Outcome(id=number, recipe=recipe, status=status, flops_ratio=flops, metric=metric)


def ids(outcomes: Sequence[Outcome]) -> list[int]:
    return [o.id for o in outcomes]


#: Half a model at 1.5 cm, a third at 3 cm, two thirds at 0.75 cm.
RMSE = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, unit="cm", scale=1.5)


class TestMetricToMinimize:
    tradeoff = Tradeoff(metric=RMSE)
    members = (outcome(11, 0.25, 3.0), outcome(13, 0.5, 1.5), outcome(17, 0.75, 0.75))
    trials = (outcome(3, 0.6, 1.6), *members, outcome(5, 0.3, 3.5), outcome(19, 0.8, None, status="failed"))

    def test_points_hold_heights(self) -> None:
        assert pareto.points(self.members, self.tradeoff).tolist() == [[0.25, -1 / 3], [0.5, -0.5], [0.75, -2 / 3]]

    def test_the_front_goes_down_with_the_cost(self) -> None:
        assert ids(pareto.front(self.trials, self.tradeoff)) == [11, 13, 17]

    def test_hypervolume_by_hand(self) -> None:
        # 1/4 wide and 1/3 high, then 1/4 by 1/2, then 1/4 by 2/3.
        expected = (1 / 3 + 1 / 2 + 2 / 3) / 4

        found = pareto.points(self.trials[:5], self.tradeoff)
        assert pareto.hypervolume(found, pareto.reference(self.tradeoff)) == pytest.approx(expected, rel=1e-12)
        assert pareto.hypervolume_over_time(self.members, self.tradeoff)[-1, 1] == pytest.approx(expected, rel=1e-12)
        assert pareto.mean_height(found, low=0.25) == pytest.approx(expected / 0.75, rel=1e-12)

    def test_a_bounded_one_by_hand(self) -> None:
        # From 7 down to 0: 5.6 has a height of 1/5, 2.1 of 7/10.
        rate = Tradeoff(metric=MetricSpec(name="miss", direction="minimize", best=0.0, worst=7.0))
        found = pareto.points([outcome(1, 0.2, 5.6), outcome(2, 0.7, 2.1)], rate)

        assert pareto.hypervolume(found) == pytest.approx(0.5 * 0.2 + 0.3 * 0.7, rel=1e-12)

    def test_knee(self) -> None:
        # Scaled to the ends: (0, 1), (1/3, 1/4) and (1, 0), so 13 lies 5/12 below the line.
        members = [outcome(11, 0.2, 3.0), outcome(13, 0.4, 15 / 14), outcome(17, 0.8, 0.75)]
        assert pareto.points(members, self.tradeoff)[1].tolist() == [0.4, pytest.approx(-7 / 12)]

        assert pareto.knee(members, self.tradeoff).id == 13

    @pytest.mark.parametrize(
        ("limits", "chosen"),
        [({"metric": 1.5}, 13), ({"metric": 1.6}, 13), ({"metric": 3.1}, 11), ({"flops": 0.7}, 13), ({"flops": 1}, 17)],
    )
    def test_picks(self, limits: dict[str, float], chosen: int) -> None:
        assert pareto.pick(self.members, limits, self.tradeoff).id == chosen

    def test_a_wish_beyond_the_best_is_met_by_nothing(self) -> None:
        with pytest.raises(InputError, match=r"no model on the front has rmse <= -0.8; the nearest is trial 17"):
            pareto.pick(self.members, {"metric": -0.8}, self.tradeoff)

    def test_what_nothing_reaches_is_said_in_its_own_words(self) -> None:
        with pytest.raises(
            InputError, match=r"has rmse <= 0.5; the nearest is trial 17 with flops_ratio 0.75 and rmse 0.75"
        ):
            pareto.pick(self.members, {"metric": 0.5}, self.tradeoff)


class TestLimit:
    def test_who_misses_it_is_on_no_front(self) -> None:
        least = Tradeoff(limit=0.7)
        trials = [outcome(3, 0.25, 0.69), outcome(5, 0.5, 0.7), outcome(7, 0.75, 0.8)]

        assert ids(pareto.front(trials)) == [3, 5, 7]
        assert ids(pareto.front(trials, least)) == [5, 7]
        assert ids(pareto.front(TestMetricToMinimize.trials, Tradeoff(metric=RMSE, limit=1.5))) == [13, 17]

    def test_a_front_that_it_leaves_empty_says_so(self) -> None:
        with pytest.raises(InputError, match=r"no trial that pruned something completed with accuracy >= 0.9"):
            pareto.knee([], Tradeoff(limit=0.9))
