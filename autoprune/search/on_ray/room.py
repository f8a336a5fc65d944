"""How many trials may run at the same time while nodes come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autoprune.errors import InputError

#: So often at most the nodes are counted.
LOOK_SECONDS = 5.0


@dataclass
class Room:
    """Counts the places for trials, again and again: a node that joins while a search runs gives it more.

    Where nothing fits for a moment, as nodes are lost, one trial waits for a place.

    Fields:
        count: how many trials fit now.
        most: no more than the study wants; None = as many as fit.
        clock: in seconds.
    """

    count: Callable[[], int]
    most: int | None = None
    clock: Callable[[], float] = time.monotonic
    _places: int = field(default=0, init=False)
    _looked: float | None = field(default=None, init=False)

    def now(self) -> int:
        """How many may run; at least one."""
        moment = self.clock()
        if self._looked is None or moment - self._looked >= LOOK_SECONDS:
            self._places, self._looked = self._counted(), moment
        return max(1, self._places if self.most is None else min(self._places, self.most))

    def _counted(self) -> int:
        try:
            return self.count()
        except InputError:  # not one trial fits
            return 0
