"""Lineage policy: which model the next recipe goes on from, what it may cost, and how long it is trained; without logs,
clock or sampler.

Members of the front descend from each other: training that went into one is not lost if the next, smaller one is cut
out of it (Elsken et al. 2019, "Efficient Multi-Objective Neural Architecture Search via Lamarckian Evolution"). What is
trained next is what the front is expected to gain most from, per second of training.

What a child is expected to reach follows from its parent and from all children before it (`lineage_expectation.py`):
a parent that disappoints is left, as its children start from less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoprune.search.proposing.lineage_expectation import Expectation, Training

#: Targets lie on a grid, each this share of the one before.
GRID = 0.9
#: A cut leaves at most so much of its parent, and at least so much: deeper cuts lose more than the time they save.
SHALLOWEST, DEEPEST = 0.95, 0.5
#: Two trainings at a time do not aim closer to each other than this, as a difference of logarithms.
APART = 0.03
#: Share of the time of the dense model's training that a training takes however small its model is: least squares over
#: the 22 trainings of a search of ResNet-20 on two CPU cores, 30 seconds + 75 seconds * cost.
FIXED_TIME = 0.28


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that recipes may go on from.

    Fields:
        number: of its trial; None = the dense model.
        height: of its metric, from 0 to 1 (`MetricSpec.height`); of accuracy that is accuracy.
        cost: relative to the dense model.
    """

    number: int | None
    height: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a recipe is to do.

    Fields:
        parent: what it goes on from; None = the dense model.
        target: relative to the dense model; the cost of the parent = train on without a cut.
        expected: height of its metric.
        length: training images, as a multiple of the shortest training's.
    """

    parent: int | None
    target: float
    expected: float
    length: float = 1.0

    @property
    def time(self) -> float:
        """How long it takes; see `time_of_training`."""
        return time_of_training(self.target, self.length)


@dataclass(frozen=True, kw_only=True)
class Lineages:
    """What the next step is chosen from.

    Fields:
        dense: the dense model.
        models: the front so far, by rising cost.
        ended: what came of the steps that have ended.
        tried: all steps ever handed out.
        running: those of them that are under way.
        low, high: the range of targets.
        lengths: that a training may have, the shortest first, which is 1.
        time_left: in which a training has to end that is longer than the shortest, and others should; see
            `time_of_training`.
    """

    dense: Model
    models: Sequence[Model]
    ended: Sequence[Training]
    tried: Sequence[Step]
    running: Sequence[Step]
    low: float
    high: float
    lengths: Sequence[float] = (1.0,)
    time_left: float = math.inf

    @cached_property
    def expectation(self) -> Expectation:
        """What trainings give, as far as those that have ended tell."""
        return Expectation.fitted(self.dense.height, self.ended)

    def lengths_of_training(self, target: float) -> list[float]:
        """How long a training may be that starts now: never none."""
        shortest, *longer = self.lengths
        return [shortest, *(length for length in longer if time_of_training(target, length) <= self.time_left)]


def time_of_training(cost: float, length: float) -> float:
    """The time that a training of a model takes, as a multiple of that of the dense model's shortest training."""
    return length * (FIXED_TIME + (1 - FIXED_TIME) * cost)


def front_of(models: Iterable[Model]) -> list[Model]:
    """The models that no other one beats, by rising cost."""
    found: list[Model] = []
    for model in sorted(models, key=lambda model: (model.cost, -model.height)):
        if not found or model.height > found[-1].height:
            found.append(model)
    return found


def area(points: Iterable[tuple[float, float]]) -> float:
    """The area below a front of (cost, height), up to the cost 1."""
    total, best, last = 0.0, 0.0, 0.0
    for cost, height in sorted(points):
        if cost >= 1:
            break
        total += best * (cost - last)
        best, last = max(best, height), cost
    return total + best * (1 - last)


def next_step(lineages: Lineages) -> Step:
    """The step that the front is expected to gain most from per second, of those that end in time if any does."""
    expected = [(model.cost, model.height) for model in lineages.models]
    expected += [(step.target, step.expected) for step in lineages.running]
    now = area(expected)

    def gain(step: Step) -> float:
        return (area([*expected, (step.target, step.expected)]) - now) / step.time

    steps = possible_steps(lineages)
    return max([step for step in steps if step.time <= lineages.time_left] or steps, key=gain)


def possible_steps(lineages: Lineages) -> list[Step]:
    """Steps that are not under way, and were not made before; never none.

    With more workers than there are such steps cuts may be deeper, then targets closer to each other.
    """
    fineness = 1
    while True:
        for deepest in (DEEPEST, 0.0):
            if found := list(_steps_on_grid(lineages, deepest, fineness)):
                return found
        fineness *= 2


def _steps_on_grid(lineages: Lineages, deepest: float, fineness: int) -> Iterator[Step]:
    tried = {(step.parent, round(math.log(step.target), 6), step.length) for step in lineages.tried}
    under_way = [math.log(step.target) for step in lineages.running]
    for parent in (lineages.dense, *lineages.models):
        for target in _targets_below(parent, lineages, deepest, fineness):
            place = math.log(target)
            if any(abs(place - other) < APART / fineness for other in under_way):
                continue
            for length in lineages.lengths_of_training(target):
                if (parent.number, round(place, 6), length) not in tried:
                    expected = lineages.expectation.child(parent.height, parent.cost, target, length)
                    yield Step(parent=parent.number, target=target, expected=expected, length=length)


def _targets_below(parent: Model, lineages: Lineages, deepest: float, fineness: int) -> Iterator[float]:
    factor = GRID ** (1 / fineness)
    for power in range(math.ceil(math.log(lineages.low / lineages.high) / math.log(factor)) + 1):
        target = max(lineages.high * factor**power, lineages.low)
        if deepest * parent.cost <= target <= SHALLOWEST * parent.cost:
            yield target
    if parent.number is not None:
        yield parent.cost
