"""When a front has stopped to grow."""

from dataclasses import replace

import fakes

from autoprune.recipe import MethodChoice
from autoprune.search.running import front_plateau
from autoprune.search.running.front_plateau import PlateauCheck, goal_progress, on_plateau
from autoprune.search.running.limits import Limits
from autoprune.study.config import Budget, Goal
from autoprune.study.metric import MetricSpec
from autoprune.study.tradeoff import Tradeoff


def test_a_plateau_is_a_front_that_has_stopped_to_grow():
    grow = [fakes.measured(n, accuracy=0.1 * n, finished=float(n)) for n in range(1, 6)]
    still = [fakes.measured(n, accuracy=0.5, finished=float(n)) for n in range(6, 9)]
    limits = Limits(patience=3, gain=0.01)

    assert not on_plateau(grow, limits)
    assert not on_plateau([*grow, *still[:2]], limits)
    assert on_plateau([*grow, *still], limits)
    assert not on_plateau([*grow, *still], Limits())
    assert not on_plateau(still, limits)  # too few to say


def test_of_a_metric_to_minimise_falling_values_are_growth():
    rmse = Tradeoff(metric=MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, scale=1.0))
    falling = [fakes.measured(n, accuracy=7.0 / n, finished=float(n)) for n in range(1, 6)]
    rising = [fakes.measured(n, accuracy=float(n), finished=float(n)) for n in range(1, 6)]
    limits = Limits(patience=3, gain=0.01)

    assert [on_plateau(outcomes, limits, rmse) for outcomes in (falling, rising)] == [False, True]


def test_a_plateau_is_looked_for_when_something_has_ended(monkeypatch):
    looked = []
    monkeypatch.setattr(
        front_plateau, "on_plateau", lambda outcomes, *_: looked.append(len(outcomes)) or len(outcomes) == 2
    )
    outcomes = []
    check, found = PlateauCheck(outcomes, Tradeoff(), None), []
    for number in range(3):
        found += [check.is_reached(Limits(patience=3)) for _ in range(2)]
        outcomes.append(fakes.measured(number))

    assert found == [False, False, False, False, True, True]
    assert looked == [1, 2]


def test_a_search_ends_when_the_front_stops_to_grow(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=None), limits=Limits(patience=15, gain=0.05))
    fakes.run_here(session)
    session.close()

    assert 17 < len(session.outcomes) < 200
    assert on_plateau(session.outcomes, session.budget.limits)


def ended(*models):
    """Trials by (accuracy, FLOPs ratio), in the order in which they end."""
    return [fakes.measured(n, accuracy=a, flops=f, finished=float(n)) for n, (a, f) in enumerate(models, 1)]


#: The dense model has 0.9: 0.88 is within two points of it but for rounding.
TWO_POINTS = Limits(patience=3, gain=0.1, goal=Goal(within=2, share=0.5))


def test_the_cheapest_within_the_loss_is_found_and_how_long_it_has_stayed():
    models = ended((0.7, 0.2), (0.89, 0.7), (0.88, 0.5), (0.9, 0.8), (0.95, 0.48))
    found = goal_progress(models, TWO_POINTS, Tradeoff(), 0.9)

    assert (found.id, found.cost, found.cost_name) == (5, 0.48, "flops")
    assert found.idle == 2  # 0.48 is no tenth below 0.5, where it fell last
    assert found.patience == 3
    assert not found.settled


def test_a_goal_is_reached_when_it_gets_no_cheaper_for_a_share_of_the_trials():
    models = ended(*[(0.7, 0.2)] * 4, (0.89, 0.7), *[(0.5, 0.1)] * 5)
    found = [goal_progress(models[:count], TWO_POINTS, Tradeoff(), 0.9) for count in range(4, 11)]

    assert [one.id for one in found] == [None, 5, 5, 5, 5, 5, 5]
    assert [(one.idle, one.patience) for one in found[1:]] == [(0, 3), (1, 3), (2, 4), (3, 4), (4, 5), (5, 5)]
    assert [one.settled for one in found] == [False] * 6 + [True]


def test_a_model_that_loses_too_much_or_was_not_pruned_is_no_goal():
    dense = fakes.measured(1, accuracy=0.9, flops=1.0, finished=1.0)
    dense = replace(dense, recipe=replace(dense.recipe, method=MethodChoice(name="dense")))
    found = goal_progress([dense, *ended((0.8799, 0.5))], TWO_POINTS, Tradeoff(), 0.9)

    assert (found.id, found.sentence()) == (None, "goal: within 2 points of the dense model; none yet")


def test_a_search_with_a_goal_ends_when_it_gets_no_cheaper(tmp_path):
    budget = Budget(trials=400, until={"within": 40}, patience=12, gain=0.05)
    config = replace(fakes.study_config(trials=400), budget=budget)
    session = fakes.open_session(tmp_path, config, limits=Limits.of(budget))
    fakes.run_here(session)
    session.close()
    goal = session.progress().goal
    least = session.dense_metric - 0.4
    within = [one for one in session.outcomes if one.metric is not None and one.metric >= least and not one.control]

    assert len(session.outcomes) < 400
    assert goal.settled
    assert goal.cost == min(one.flops_ratio for one in within)
    assert goal.sentence() == (
        f"goal: within 40 points of the dense model; trial {goal.id} with {goal.cost:.1%} of the flops, "
        f"no cheaper for {goal.idle} of {goal.patience} trials"
    )
