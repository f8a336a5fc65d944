"""When a front has stopped to grow."""

import fakes

from autoprune.search.running import front_plateau
from autoprune.search.running.front_plateau import PlateauCheck, on_plateau
from autoprune.search.running.limits import Limits
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
    check, found = PlateauCheck(outcomes, Tradeoff()), []
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
