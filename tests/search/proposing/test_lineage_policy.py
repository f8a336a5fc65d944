"""The lineage policy: what every policy owes, and what this one prefers."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from autoprune.search.proposing.lineage_expectation import Training
from autoprune.search.proposing.lineage_policy import (
    DEEPEST,
    FIXED_TIME,
    SHALLOWEST,
    Lineages,
    Model,
    area,
    front_of,
    next_step,
    possible_steps,
)
from autoprune.study.pareto import hypervolume

LENGTHS = (1.0, 2.0, 4.0)
DENSE = Model(number=None, height=0.9, cost=1.0)


def empty(**fields):
    known = {"dense": DENSE, "models": (), "ended": (), "tried": (), "running": (), "low": 0.05, "high": 0.8}
    known["lengths"] = LENGTHS
    return Lineages(**{**known, **fields})


def training(parent, child, length=1.0):
    costs = {"parent_cost": parent.cost, "cost": child.cost}
    return Training(**costs, parent_height=parent.height, height=child.height, length=length)


def true_accuracy(cost, luck=0.0):
    return 0.9 - 0.03 * math.log(cost) ** 2 + luck


class Search:
    """A search whose children lie on a known curve, a little off it as their number says."""

    def __init__(self, workers=1, **fields):
        self.lineages, self.models, self.waiting, self.workers = empty(**fields), {None: DENSE}, [], workers

    def hand_out(self):
        step = next_step(self.lineages)
        self.lineages = replace(
            self.lineages, tried=(*self.lineages.tried, step), running=(*self.lineages.running, step)
        )
        self.waiting.append(step)
        return step

    def end(self):
        step, number = self.waiting.pop(0), len(self.models)
        parent = self.models[step.parent]
        cut = step.target < parent.cost
        accuracy = true_accuracy(step.target, 0.002 * (number % 3)) if cut else parent.height + 0.001
        model = Model(number=number, height=accuracy, cost=step.target)
        self.models[number] = model
        ended = (*self.lineages.ended, training(parent, model, step.length))
        running = tuple(self.waiting)
        front = front_of(known for known in self.models.values() if known.number is not None)
        self.lineages = replace(self.lineages, ended=ended, running=running, models=front)

    def run(self, count):
        steps = []
        for _ in range(count):
            while len(self.waiting) < self.workers:
                steps.append(self.hand_out())
            self.end()
        return steps


@pytest.mark.parametrize("workers", [1, 2, 16])
class TestContract:
    def test_no_experiment_comes_twice(self, workers):
        steps = Search(workers).run(90)
        assert len({(step.parent, round(step.target, 9), step.length) for step in steps}) == len(steps)

    def test_targets_lie_in_the_range_and_not_above_the_parent(self, workers):
        search = Search(workers, low=0.1, high=0.7)
        for step in search.run(60):
            assert 0.1 - 1e-12 <= step.target <= 0.7 + 1e-12
            assert step.target <= search.models[step.parent].cost

    def test_the_same_past_gives_the_same_step(self, workers):
        assert Search(workers).run(40) == Search(workers).run(40)

    def test_the_whole_range_is_reached(self, workers):
        search = Search(workers)
        search.run(60)
        costs = [math.log(model.cost) for model in search.lineages.models]
        assert min(costs) <= math.log(0.06)
        assert max(costs) >= math.log(0.6)
        assert all(after - before < math.log(1.6) for before, after in pairwise(costs))

    def test_what_is_longer_than_the_shortest_ends_in_time(self, workers):
        search = Search(workers, time_left=1.2)
        for step in search.run(90):
            time = step.length * (FIXED_TIME + (1 - FIXED_TIME) * step.target)
            assert step.length in LENGTHS
            assert step.length == 1 or time <= 1.2

    def test_a_parent_has_ended_and_is_on_the_front(self, workers):
        search = Search(workers)
        for _ in range(50):
            while len(search.waiting) < workers:
                front = {None, *(model.number for model in search.lineages.models)}
                assert search.hand_out().parent in front
            search.end()


def test_the_first_wave_of_many_workers_covers_the_range_from_the_dense_model():
    targets = sorted(step.target for step in Search(64).run(1)[:64])
    assert targets[0] <= 0.06
    assert targets[-1] == pytest.approx(0.8)
    assert len(targets) == 64


def test_an_area_is_the_sum_of_its_steps():
    # 0.5 from 0.2 to 0.4, 0.7 from 0.4 to 0.7, 0.8 from 0.7 to 1; (0.5, 0.6) is beaten, cost 1 adds nothing
    points = [(0.4, 0.7), (0.2, 0.5), (0.7, 0.8), (0.5, 0.6), (1.0, 0.9)]
    assert area(points) == pytest.approx(0.5 * 0.2 + 0.7 * 0.3 + 0.8 * 0.3)
    assert area([]) == 0.0


def test_a_front_rises_with_cost():
    models = [Model(number=n, height=a, cost=c) for n, (a, c) in enumerate([(0.5, 0.3), (0.4, 0.5), (0.6, 0.5)])]
    assert [model.number for model in front_of(models)] == [0, 2]


def test_children_are_cut_within_reach_of_their_parent():
    search = Search()
    search.run(20)
    for step in possible_steps(search.lineages):
        cost = search.models[step.parent].cost
        assert step.target == cost or DEEPEST * cost <= step.target <= SHALLOWEST * cost


def test_what_is_trained_next_gains_most_hypervolume_per_second():
    search = Search(workers=3)
    search.run(17)
    known = [(model.cost, -model.height) for model in search.lineages.models]
    known += [(step.target, -step.expected) for step in search.lineages.running]

    def gain(step):
        more = hypervolume([*known, (step.target, -step.expected)]) - hypervolume(known)
        return more / (step.length * (FIXED_TIME + (1 - FIXED_TIME) * step.target))

    best = next_step(search.lineages)
    assert gain(best) == pytest.approx(max(gain(step) for step in possible_steps(search.lineages)), rel=1e-9)
    assert len({gain(step) for step in possible_steps(search.lineages)}) > 5


def test_a_parent_that_disappoints_is_left():
    good, poor = (Model(number=n, height=true_accuracy(c, d), cost=c) for n, c, d in ((0, 0.4, 0.0), (1, 0.44, -0.02)))
    children = [s for s in possible_steps(empty(models=[good, poor])) if s.target == pytest.approx(0.8 * 0.9**9)]
    by_parent = {step.parent: step.expected for step in children}
    assert by_parent[0] > by_parent[1]


def test_what_children_reached_changes_what_is_expected_of_others():
    parent = Model(number=0, height=true_accuracy(0.5), cost=0.5)

    def expected(accuracy):
        child = Model(number=1, height=accuracy, cost=0.405)
        known = empty(models=[parent], ended=[training(parent, child)])
        return next(s.expected for s in possible_steps(known) if s.parent == 0 and s.target < 0.3)

    assert expected(0.87) > expected(0.85) > expected(0.83)


def test_a_search_trains_longer_when_short_trainings_gain_no_more():
    """At every cost there is a model at its ceiling already; short trainings leave it there."""
    costs = [max(0.8 * 0.9**k, 0.05) for k in range(28)]
    models = [Model(number=number, cost=cost, height=true_accuracy(cost)) for number, cost in enumerate(costs)]
    full = empty(models=front_of(models), ended=[training(model, model) for model in models])
    assert next_step(full).length > 1
    assert next_step(empty()).length == 1


def test_of_short_trainings_too_those_that_end_in_time_come_first():
    models = [Model(number=n, height=true_accuracy(cost), cost=cost) for n, cost in enumerate((0.05, 0.4))]
    best = next_step(empty(models=models)).target
    assert 0.2 <= best < 0.4
    left = FIXED_TIME + (1 - FIXED_TIME) * 0.15
    assert next_step(empty(models=models, time_left=left)).target <= 0.15
    assert next_step(empty(models=models, time_left=0.01)).target == best


def test_where_there_is_no_time_for_a_long_training_a_short_one_is_taken():
    assert empty(time_left=0.0).lengths_of_training(0.5) == [1.0]
    assert empty(time_left=2 * (FIXED_TIME + (1 - FIXED_TIME) * 0.5)).lengths_of_training(0.5) == [1.0, 2.0]
