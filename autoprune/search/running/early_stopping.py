"""Multi-objective asynchronous successive halving: which paused trial goes on. Without clock, disk or Ray.

The session asks here at which rung a trial pauses and which goes on; `segments.py` ends the segment of a trial there;
`admission.py` adds what fits the budget; `limits.py` and `front_plateau.py` end the search as a whole.

Every rung below the end is a place where trials pause. Of those measured at a rung so far, the best `keep` may go on;
asynchronous, as in ASHA (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"): whenever a worker is
free the best trial that may go on does, from the highest rung down, and if there is none a new one starts. As the cost
of a recipe is known and the metric only compares among similar costs, the best is the one that adds most hypervolume to
those that went on from the same rung; where none adds any, it is the first by non-dominated sorting and crowding
distance (Deb et al. 2002, NSGA-II).

Unlike ASHA no more than the share `keep` ever go on. With several objectives each newcomer changes which trials are
among the best, and a third that changes all the time let half of all trials go on in a search of a hundred.
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
class RungResults:
    """The results at one rung: number -> cost ratios and -height; which trials wait here, and which went on."""

    share: float
    points: dict[int, tuple[float, ...]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    went_on: set[int] = field(default_factory=set)

    def rank_waiting(self) -> list[int]:
        """The trials that wait here, the best first; of equal ones, the earlier number."""
        ids = sorted(self.points)
        ranks = ranked(np.array([self.points[number] for number in ids])) if self.waiting else ()
        waiting = [ids[index] for index in ranks if ids[index] in self.waiting]
        return sorted(waiting, key=lambda number: -self._volume_with(number))  # stable: equal ones stay by rank

    def _volume_with(self, number: int) -> float:
        """Hypervolume of this trial and of the trials that went on, against all cost ratios 1 and height 0."""
        points = [self.points[other] for other in sorted({*self.went_on, number})]
        return hypervolume(points, (*(1.0 for _ in points[0][1:]), 0.0))


class SuccessiveHalving:
    """Knows which trial waits at which rung, and which of them may go on.

    Args:
        shares: of the training images, at which trials pause; all below 1.
        keep: share of a rung's trials that may go on.
    """

    def __init__(self, shares: Sequence[float], keep: float) -> None:
        self.rungs = [RungResults(share) for share in sorted(shares)]
        self.keep = keep
        self._stale = True
        self._promotable: int | None = None

    @property
    def shares(self) -> list[float]:
        """The rungs at which trials pause, ascending; none = nothing ever pauses."""
        return [rung.share for rung in self.rungs]

    def next_pause(self, share: float | None = None) -> float:
        """Where a trial pauses next that has paused at `share` (None: that is new); 1 = nowhere."""
        return next((later for later in self.shares if share is None or later > share), 1.0)

    def record(self, number: int, share: float, point: Sequence[float]) -> None:
        """Note what a trial has reached at a rung; it may wait there or not."""
        self._stale = True
        self._rung_at(share).points[number] = tuple(point)
        self._mark_passed(number, share)

    def record_completion(self, number: int) -> None:
        """Note that a trial has come to its end."""
        self.resume(number)
        self._mark_passed(number, 1.0)

    def pause(self, number: int, share: float) -> None:
        """Let a trial wait at the rung where it was measured last."""
        self._stale = True
        self._rung_at(share).waiting.add(number)

    def resume(self, number: int) -> None:
        """Let a waiting trial go on."""
        self._stale = True
        for rung in self.rungs:
            if number in rung.waiting:
                rung.waiting.remove(number)
                rung.went_on.add(number)

    def find_promotable(self) -> int | None:
        """The trial that may go on: in the highest rung that has one, the best that waits.

        Asked for far more often than anything changes; among a thousand trials it takes 0.16 s to find.
        """
        if self._stale:
            self._stale, self._promotable = False, self._search_rungs()
        return self._promotable

    def rank_waiting(self) -> list[int]:
        """All that wait, the highest rung first, in each the best: the order in which they go on at the end."""
        return [number for rung in reversed(self.rungs) for number in rung.rank_waiting()]

    def _search_rungs(self) -> int | None:
        for rung in reversed(self.rungs):
            if len(rung.went_on) < math.floor(self.keep * len(rung.points)) and rung.waiting:
                return rung.rank_waiting()[0]
        return None

    def _mark_passed(self, number: int, share: float) -> None:
        for rung in self.rungs:
            if rung.share < share and number in rung.points:
                rung.went_on.add(number)

    def _rung_at(self, share: float) -> RungResults:
        return next(rung for rung in self.rungs if rung.share == share)


def pausing_shares(space: Space) -> tuple[float, ...]:
    """The shares of the training images at which trials of a space pause: the rungs of its recipes below the end.

    Raises:
        InputError: not all recipes have the same, or there are none.
    """
    found = {tuple(sorted(share for share in recipe.training.rungs if share < 1)) for recipe in space.corners()}
    if len(found) != 1 or () in found:
        allowed = "one list for all recipes, with a rung below 1, for instance [0, 0.25, 1]"
        raise InputError("a cascade ends recipes at their rungs", where="space.training.rungs", allowed=allowed)
    return found.pop()
