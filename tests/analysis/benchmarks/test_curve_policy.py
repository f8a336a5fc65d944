"""The lineage policy that ours is measured against: its wave, what it expects by hand, and that a search uses it."""

from __future__ import annotations

import math
import sys

import pytest

from autoprune.analysis.benchmarks import curve_policy
from autoprune.analysis.benchmarks.curve_policy import CurveExpectation, chosen_by_curve, next_step_by_curve
from autoprune.search.proposing import lineage_planner
from autoprune.search.proposing.lineage_expectation import Training
from autoprune.search.proposing.lineage_policy import Lineages, Model, Step

DENSE = Model(number=None, height=0.9, cost=1.0)


def lineages(*models: Model, steps: int, running: tuple[Step, ...] = (), ended: tuple[Training, ...] = ()) -> Lineages:
    tried = [Step(parent=None, target=0.5 + 0.001 * number, expected=0.8) for number in range(steps)]
    return Lineages(dense=DENSE, models=models, ended=ended, tried=tried, running=running, low=0.3, high=0.8)


def test_a_wave_goes_down_the_range_out_of_what_is_there() -> None:
    first = next_step_by_curve(lineages(steps=0))
    second = next_step_by_curve(lineages(steps=1, running=(first,)))
    third = next_step_by_curve(lineages(Model(number=7, height=0.85, cost=0.57), steps=2))
    missed = next_step_by_curve(lineages(Model(number=7, height=0.85, cost=0.41), steps=2))

    assert (first.parent, first.target) == (None, 0.75)
    assert (second.parent, second.target) == (None, 0.75**2)
    assert (third.parent, third.target) == (7, 0.75**3)
    assert (missed.parent, missed.target) == (None, 0.75**3)
    after = next_step_by_curve(lineages(Model(number=7, height=0.85, cost=0.57), steps=4))  # 0.75^5 is below the range
    assert after.target not in (0.75**4, 0.75**5)


def test_a_cut_loses_what_the_curve_loses_but_for_what_cuts_gave_beyond_it() -> None:
    # through (1, 0.9), (1/e, 0.8), (1/e^2, 0.6): 0.9 + 0.05 x - 0.05 x^2 with x = ln(cost)
    models = [Model(number=1, height=0.8, cost=math.exp(-1)), Model(number=2, height=0.6, cost=math.exp(-2))]
    untried = CurveExpectation.fitted(DENSE, models, [])
    assert untried.child(0.79, math.exp(-1), math.exp(-2)) == pytest.approx(0.79 - 0.2 + 0.004)

    # one cut lost 0.17 where the curve loses 0.2, another 0.11 where it loses 0.1
    ended = [
        Training(parent_cost=math.exp(-1), parent_height=0.8, cost=math.exp(-2), height=0.63),
        Training(parent_cost=1.0, parent_height=0.9, cost=math.exp(-1), height=0.79),
    ]
    expectation = CurveExpectation.fitted(DENSE, models, ended)
    assert expectation.child(0.79, math.exp(-1), math.exp(-2)) == pytest.approx(0.79 - 0.2 + 0.01)


def test_training_on_gives_what_it_gave_and_less_every_time() -> None:
    models = [Model(number=1, height=0.8, cost=0.4)]
    first = Training(parent_cost=0.4, parent_height=0.7, cost=0.4, height=0.78)
    second = Training(parent_cost=0.4, parent_height=0.78, cost=0.4, height=0.8)
    expectation = CurveExpectation.fitted(DENSE, models, [first, second])

    assert CurveExpectation.fitted(DENSE, models, []).child(0.8, 0.4, 0.4) == pytest.approx(0.806)
    assert expectation.child(0.7, 0.4, 0.4) == pytest.approx(0.75)  # 0.05 in the mean
    assert expectation.child(0.78, 0.4, 0.4) == pytest.approx(0.78 + 0.05 / 2)
    assert expectation.child(0.8, 0.4, 0.4) == pytest.approx(0.8 + 0.05 / 3)


def test_the_command_searches_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def command() -> int:
        used.append(lineage_planner.next_step)
        return 7

    monkeypatch.setattr(curve_policy, "autoprune", command)
    monkeypatch.setattr(sys, "argv", ["curve_policy", "search"])
    ours = lineage_planner.next_step
    with pytest.raises(SystemExit) as ended:
        curve_policy.main()
    with chosen_by_curve():
        used.append(lineage_planner.next_step)

    assert ended.value.code == 7
    assert used == [next_step_by_curve, next_step_by_curve]
    assert lineage_planner.next_step is ours
