"""A simpler lineage policy, to measure ours against: children are expected on a curve through the front.

    python -m autoprune.analysis.benchmarks.curve_policy search cifar10_resnet20 --minutes 10 --out STUDY

The words behind the module's name are those of the command `autoprune`, whose searches then choose parents and targets
so. First a wave goes down the costs, each model cut out of the smallest larger one that is there. Then a cubic in
ln(cost) goes through the front. A child is expected to lose to its parent what the curve loses between their costs, but
for what cuts so far have given more than that, and a model that is trained on to gain what models trained on so far
have gained, divided by the number of times that it was. What is trained next is what the front gains most from per
second, as in ours; so are the steps that may be taken, but that all trainings are of the shortest length.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from unittest import mock

import numpy as np

from autoprune.cli import main as autoprune
from autoprune.search.proposing import lineage_planner
from autoprune.search.proposing.lineage_expectation import Training
from autoprune.search.proposing.lineage_policy import Lineages, Model, Step, next_step

#: Targets of the first wave, each this share of the one before.
WAVE = 0.75
#: What a cut and what training on give before any has ended, and how many of the last ones count.
GAINED_BY_CUT, GAINED_BY_TRAINING_ON = 0.004, 0.006
LAST_CUTS, LAST_TRAINED_ON = 8, 6
#: A cubic needs more points than this, else the curve is a parabola.
FEW = 5


@dataclass(frozen=True)
class CurveExpectation:
    """Stands where ours stands (`lineage_expectation.Expectation`).

    Fields:
        curve: coefficients of height over ln(cost), the highest power first.
        by_cut, by_training_on: what they have given lately, beyond the curve and beyond the parent.
        times: (cost, height) of a model -> how often its lineage was trained on just before it.
    """

    curve: tuple[float, ...]
    by_cut: float
    by_training_on: float
    times: dict[tuple[float, float], int]

    @classmethod
    def fitted(cls, dense: Model, models: Sequence[Model], ended: Sequence[Training]) -> CurveExpectation:
        """The curve through the dense model and the front, and what trainings gave beside it."""
        points = [*models, dense]
        logs, heights = [math.log(model.cost) for model in points], [model.height for model in points]
        degree = min(3 if len(points) > FEW else 2, len(points) - 1)
        curve = tuple(np.polyfit(logs, heights, degree).tolist())
        cuts = [training for training in ended if training.cost < training.parent_cost]
        trained_on = [training for training in ended if training.cost >= training.parent_cost]
        times: dict[tuple[float, float], int] = {}
        for training in trained_on:
            before = times.get((training.parent_cost, training.parent_height), 0)
            times[training.cost, training.height] = before + 1
        beyond = [training.height - training.parent_height + _loss(curve, training) for training in cuts[-LAST_CUTS:]]
        gained = [training.height - training.parent_height for training in trained_on[-LAST_TRAINED_ON:]]
        return cls(curve, _mean(beyond, GAINED_BY_CUT), _mean(gained, GAINED_BY_TRAINING_ON), times)

    def child(self, parent_height: float, parent_cost: float, cost: float, _length: float = 1.0) -> float:
        """The height of a child at `cost`; without a cut where that is the parent's."""
        if cost >= parent_cost:
            return parent_height + self.by_training_on / (1 + self.times.get((parent_cost, parent_height), 0))
        step = Training(parent_cost=parent_cost, parent_height=parent_height, cost=cost, height=0.0)
        return parent_height - _loss(self.curve, step) + self.by_cut


class CurveLineages(Lineages):
    """Lineages whose children are expected on the curve."""

    @cached_property
    def expectation(self) -> CurveExpectation:  # type: ignore[override]
        """What trainings give, as far as the front tells."""
        return CurveExpectation.fitted(self.dense, self.models, self.ended)


def next_step_by_curve(lineages: Lineages) -> Step:
    """The next step of the wave, then the one that the front is expected to gain most from per second."""
    known = {field.name: getattr(lineages, field.name) for field in fields(Lineages)}
    by_curve = CurveLineages(**{**known, "lengths": (1.0,)})
    wave = [target for power in range(1, 99) if lineages.low <= (target := WAVE**power) <= lineages.high]
    done = len(lineages.tried)
    return _step_down(by_curve, wave[done]) if done < len(wave) else next_step(by_curve)


def _step_down(lineages: CurveLineages, target: float) -> Step:
    """The cut to a target out of the smallest larger model."""
    parent = min((m for m in (lineages.dense, *lineages.models) if m.cost > target), key=lambda model: model.cost)
    expected = lineages.expectation.child(parent.height, parent.cost, target)
    return Step(parent=parent.number, target=target, expected=expected)


def chosen_by_curve() -> mock._patch[object]:
    """Within it searches of this process choose their steps so."""
    return mock.patch.object(lineage_planner, "next_step", next_step_by_curve)


def _loss(curve: Sequence[float], step: Training) -> float:
    heights = np.polyval(curve, [math.log(min(step.parent_cost, 1.0)), math.log(step.cost)])
    return max(0.0, float(heights[0] - heights[1]))


def _mean(values: Sequence[float], otherwise: float) -> float:
    return float(np.mean(values)) if values else otherwise


def main() -> None:
    """The command `autoprune`, with this policy."""
    with chosen_by_curve():
        sys.exit(autoprune())


if __name__ == "__main__":
    main()
