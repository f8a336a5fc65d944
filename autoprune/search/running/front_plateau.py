"""Plateau: whether the front of a whole study has stopped to grow, which ends its search."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.search.running.limits import Limits
from autoprune.study.outcome import Outcome
from autoprune.study.pareto import hypervolume_over_time
from autoprune.study.tradeoff import ACCURACY_AND_FLOPS, Tradeoff


class PlateauCheck:
    """Looks for a plateau once per outcome, as that takes a while.

    Args:
        outcomes: those so far; what ends later is added to this list.
        tradeoff: of the study.
    """

    def __init__(self, outcomes: list[Outcome], tradeoff: Tradeoff) -> None:
        self._outcomes, self._tradeoff = outcomes, tradeoff
        self._looked_at = 0
        self._found = False

    def is_reached(self, limits: Limits) -> bool:
        """See `on_plateau`."""
        if self._looked_at != len(self._outcomes):
            self._looked_at = len(self._outcomes)
            self._found = on_plateau(self._outcomes, limits, self._tradeoff)
        return self._found


def on_plateau(outcomes: Sequence[Outcome], limits: Limits, tradeoff: Tradeoff = ACCURACY_AND_FLOPS) -> bool:
    """Whether the last `patience` trials that were pruned and completed brought hardly more hypervolume."""
    if limits.patience is None:
        return False
    volumes = hypervolume_over_time(outcomes, tradeoff)[:, 1]
    if len(volumes) <= limits.patience:
        return False
    return bool(volumes[-1] < volumes[-1 - limits.patience] * (1 + limits.gain))
