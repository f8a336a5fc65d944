"""Cascade: which paused recipe goes on. Multi-objective asynchronous successive halving, without clock, disk or Ray.

Every rung below the end is a place where recipes pause. Of those measured at a rung so far, the best `keep` may go on;
asynchronous, as in ASHA (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"): whenever a worker is
free the best recipe that may go on does, from the highest rung down, and if there is none a new one starts. As the cost
of a recipe is known and accuracy only compares among similar costs, the best is the one that adds most hypervolume to
those that went on from the same rung; where none adds any, it is the first by non-dominated sorting and crowding
distance (Deb et al. 2002, NSGA-II).

Unlike ASHA no more than the share `keep` ever go on. With several objectives each newcomer changes who is among the
best, and a third that changes all the time let half of all recipes go on in a search of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.errors import InputError
from autoprune.study.pareto import hypervolume, ranked
from autoprune.study.space import Space


@dataclass
class Rung:
    """The results at one rung: id -> cost ratios and -accuracy; who waits here, and who went on from here."""

    share: float
    points: dict[int, tuple[float, ...]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    went_on: set[int] = field(default_factory=set)

    def order(self) -> list[int]:
        """Those that wait here, the best first; of equal ones, the earlier number."""
        ids = sorted(self.points)
        ranks = ranked(np.array([self.points[number] for number in ids])) if self.waiting else ()
        waiting = [ids[index] for index in ranks if ids[index] in self.waiting]
        return sorted(waiting, key=lambda number: -self._volume(number))  # stable: equal ones stay by rank

    def _volume(self, number: int) -> float:
        """Hypervolume of those that went on from here and this one, against all cost ratios 1 and accuracy 0."""
        points = [self.points[other] for other in sorted({*self.went_on, number})]
        return hypervolume(points, (*(1.0 for _ in points[0][1:]), 0.0))


class Cascade:
    """Who waits where, and who may go on.

    Args:
        shares: of the training images, at which recipes pause; ascending, all below 1.
        keep: share of a rung's recipes that may go on.
    """

    def __init__(self, shares: Sequence[float], keep: float) -> None:
        self.rungs = [Rung(share) for share in sorted(shares)]
        self.keep = keep
        self._stale = True
        self._found: int | None = None

    def next_share(self, share: float | None = None) -> float:
        """Where a recipe pauses next that has paused at `share` (None: that is new); 1 = nowhere."""
        after = (rung.share for rung in self.rungs if share is None or rung.share > share)
        return next(after, 1.0)

    def measured(self, number: int, share: float, point: Sequence[float]) -> None:
        """A recipe has come as far as a rung; it may wait there or not."""
        self._stale = True
        self._rung(share).points[number] = tuple(point)
        self._went_on(number, share)

    def completed(self, number: int) -> None:
        """A recipe has come to its end."""
        self.go_on(number)
        self._went_on(number, 1.0)

    def pause(self, number: int, share: float) -> None:
        """A recipe waits at the rung where it was measured last."""
        self._stale = True
        self._rung(share).waiting.add(number)

    def go_on(self, number: int) -> None:
        """A recipe waits no more."""
        self._stale = True
        for rung in self.rungs:
            if number in rung.waiting:
                rung.waiting.remove(number)
                rung.went_on.add(number)

    def promotable(self) -> int | None:
        """The recipe that may go on: in the highest rung that has one, the best of those that wait.

        Asked for far more often than anything changes; among a thousand recipes it takes 0.16 s to find.
        """
        if self._stale:
            self._stale, self._found = False, self._find()
        return self._found

    def _find(self) -> int | None:
        for rung in reversed(self.rungs):
            if len(rung.went_on) < math.floor(self.keep * len(rung.points)) and rung.waiting:
                return rung.order()[0]
        return None

    def leftovers(self) -> list[int]:
        """All that wait, the highest rung first, in each the best: who goes on if there is time left in the end."""
        return [number for rung in reversed(self.rungs) for number in rung.order()]

    def _went_on(self, number: int, share: float) -> None:
        for rung in self.rungs:
            if rung.share < share and number in rung.points:
                rung.went_on.add(number)

    def _rung(self, share: float) -> Rung:
        return next(rung for rung in self.rungs if rung.share == share)


def pauses(space: Space) -> tuple[float, ...]:
    """The shares of the training images at which recipes of a space pause: their rungs below the end.

    Raises:
        InputError: not all recipes have the same, or there are none.
    """
    found = {tuple(sorted(share for share in recipe.training.rungs if share < 1)) for recipe in space.corners()}
    if len(found) != 1 or () in found:
        allowed = "one list for all recipes, with a rung below 1, for instance [0, 0.25, 1]"
        raise InputError("a cascade ends recipes at their rungs", where="space.training.rungs", allowed=allowed)
    return found.pop()
