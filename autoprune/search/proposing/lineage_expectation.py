"""What a training along a lineage is expected to give: the height of a child, from its parent's, from both costs and
from how long it is trained.

Height is how good a metric is, from 0 to 1 (`MetricSpec.height`); of accuracy that is accuracy itself. Trained on at
one cost again and again, a model ends at a height of its own: its ceiling. What a model lacks to its
ceiling is mostly made up by one training; a cut adds to it, by more than in proportion to what it takes away:

    child = ceiling(t) - KEPT * (ceiling(p) - parent) - shock * ln(p / t)^POWER        (p, t: costs of parent and child)

    ceiling(t) = dense + c1 ln t + c2 (ln t)^2 + c3 (ln t)^3

That is a child of the shortest training. One `length` times as long lacks less to the dense model:

    dense - longer child = (dense - child) / length^patience                            (if that is positive)

The five numbers c1, c2, c3, shock and patience are fitted to the children so far and to a guess that these replace. 65
trainings of ResNet-20 (CIFAR-10, `l1`, 250 steps: three chains of twelve small cuts and two searches) lie 0.4 points
about this fit; as much comes from the 5,000 images that they were measured with. It says why many small cuts end above
few large ones, and what training on is worth. A search simulated by it gains 0.002 in hypervolume and in mean height
over one that expects children on a curve through the front, as much as one that knows the true numbers.

27 trainings with once, twice and four times 32,000 images, three pairs of parent and target of ResNet-20 and seven of a
VGG-16, lie 0.3 and 0.4 points about the fit, with a patience of 0.25 and 0.28. With a patience of its own (0.2) for
what the ceiling lacks to the dense model, and another one (0.6) for the rest, they lie no nearer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

#: The share that is left, after a training, of what its parent lacked. Least squares over the 65 trainings: 0.32;
#: searches simulated with 0.15 to 0.6 lose nothing by it.
KEPT = 0.32
#: How the loss by a cut grows with the depth of the cut: least squares over the same.
POWER = 1.44
#: The guess at (c1, c2, c3, shock, patience), and its standard errors.
GUESS, UNSURE = (0.01, -0.04, -0.008, 0.03, 0.3), (0.03, 0.03, 0.012, 0.015, 0.1)
#: The standard error of a child's height.
NOISE = 0.004


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that has ended. Costs are relative to the dense model, `length` to the shortest training."""

    parent_cost: float
    parent_height: float
    cost: float
    height: float
    length: float = 1.0


@dataclass(frozen=True)
class Expectation:
    """What trainings along lineages give. `ceiling`: c1, c2, c3."""

    dense: float
    ceiling: tuple[float, float, float]
    shock: float
    patience: float

    @classmethod
    def fitted(cls, dense: float, trainings: Iterable[Training]) -> Expectation:
        """The fit to trainings and to the guess, each weighted by its standard error.

        What lies far off counts in proportion only, not squared: a method that fails says little about the others.

        Args:
            dense: the dense model's height.
        """
        known = list(trainings)
        rows = np.array([_row(training.parent_cost, training.cost) for training in known]).reshape(-1, 4)
        inherited = KEPT * (np.array([training.parent_height for training in known]) - dense)
        reached = np.array([training.height for training in known]) - dense
        lengths = np.array([training.length for training in known])

        def residuals(numbers: np.ndarray) -> np.ndarray:
            expected = _lengthened(inherited + rows @ numbers[:4], lengths, numbers[4])
            return np.concatenate([(numbers - GUESS) / UNSURE, (expected - reached) / NOISE])

        first, second, third, shock, patience = least_squares(residuals, GUESS, loss="soft_l1").x.tolist()
        return cls(dense, (first, second, third), shock, patience)

    def child(self, parent_height: float, parent_cost: float, cost: float, length: float = 1.0) -> float:
        """The height of a child at `cost`; without a cut where that is the parent's."""
        numbers = np.array([*self.ceiling, self.shock])
        gained = KEPT * (parent_height - self.dense) + _row(parent_cost, cost) @ numbers
        return float(self.dense + _lengthened(np.array(gained), np.array(length), self.patience))


def _lengthened(gained: np.ndarray, lengths: np.ndarray, patience: float) -> np.ndarray:
    """What longer trainings give over the dense model, of what the shortest give."""
    return np.where(gained < 0, gained * lengths**-patience, gained)


def _row(parent_cost: float, cost: float) -> np.ndarray:
    """The factors of c1, c2, c3 and shock in a child's height."""
    start, end = math.log(parent_cost), math.log(cost)
    powers = np.arange(1, 4)
    return np.append(end**powers - KEPT * start**powers, -(max(start - end, 0.0) ** POWER))
