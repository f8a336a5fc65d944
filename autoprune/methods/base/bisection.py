"""Bisection to the target, for methods that find widths themselves: a scalar of theirs is bisected, last units filled.

Such a method gives ranks, one per unit, for every value of its scalar: 1 or more where it keeps the unit; among the
units that it keeps, and among those that it does not, the lower rank goes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoprune.engine.allocation.allocate import TOLERANCE, allocate_by, excess
from autoprune.engine.allocation.strategies import Global, limits_of
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.graph import ChannelGraph, Floats, Ints
from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Scores
from autoprune.recipe import Allocation, Target

#: How often the range of the scalar is halved.
HALVINGS = 12


@dataclass(frozen=True)
class BisectedCut:
    """Where a bisection ended.

    Fields:
        value: of the scalar.
        keep: what is kept.
        adjusted: units that are kept though the method at this value would not, or the other way round.
    """

    value: float
    keep: Keep
    adjusted: int


@dataclass(frozen=True, eq=False)
class Bisection:
    """A search for the value of a method's scalar that meets a target.

    What is kept for a value is what the method keeps, with the next-ranked units up to the next width that the
    allocation allows. Strategy and normalisation of the allocation have no say; its limits have.

    Fields:
        graph: of the model that is cut.
        target: for that graph.
        allocation: the groups that it excludes, its smallest widths and `round_to` are honoured.
    """

    graph: ChannelGraph
    target: Target
    allocation: Allocation

    def find(self, ranks_at: Callable[[float], Scores], low: float, high: float) -> BisectedCut:
        """The value between `low` and `high` that meets the target, or comes nearest to it.

        Where the cut jumps over the target's tolerance, units come or go in the order of the ranks at the nearest
        value, all groups together.

        Args:
            ranks_at: the ranks for a value of the scalar; the higher the value, the fewer units should be kept (where
                more are, that is no error: the nearest of all values that were tried is taken).
            low, high: range of the scalar.

        Raises:
            TargetError: the target is out of reach, or no widths come near enough.
        """
        tried = []
        for _ in range(HALVINGS):
            value = (low + high) / 2
            cut, over = self.cut_at(value, ranks_at(value))
            if abs(over) <= TOLERANCE:
                return cut
            tried.append((abs(over), value))
            low, high = (value, high) if over > 0 else (low, value)
        nearest = min(tried)[1]
        return self.fill(nearest, ranks_at(nearest))

    def cut_at(self, value: float, ranks: Scores) -> tuple[BisectedCut, float]:
        """What the method keeps at one value, at widths that are allowed, and how far the target is overshot then."""
        kept = {}
        for group, widths in self._prunable_widths(ranks).items():
            wanted = int((ranks[group] >= 1).sum())
            width = int(widths[widths >= wanted][0])
            if width < widths[-1]:
                kept[group] = np.argsort(ranks[group], kind="stable")[len(ranks[group]) - width :].tolist()
        keep = Keep.of(kept)
        cut = BisectedCut(value, keep, _count_adjusted(ranks, keep))
        return cut, excess(self.graph, keep, self.target)

    def fill(self, value: float, ranks: Scores) -> BisectedCut:
        """The units that rank highest, all groups together, as many as the target allows."""
        prunable = {group: ranks[group] for group in self._prunable_widths(ranks)}
        limits = limits_of(self.allocation)
        keep = allocate_by(self.graph, prunable, self.target, Global(normalise="none"), limits)
        return BisectedCut(value, keep, _count_adjusted(ranks, keep))

    def _prunable_widths(self, ranks: Scores) -> dict[str, Ints]:
        """The widths of the groups that may become narrower."""
        widths = allowed_widths(self.graph, self.allocation, ranks)
        return {group: widths[group] for group in ranks if len(widths[group]) > 1}


def ranks_of_group(stays: np.ndarray, values: Floats) -> Floats:
    """Ranks of one group: by `values` (at least 0, maybe infinite), units that stay above those that do not."""
    bounded: Floats = 1 - 1 / (1 + values)
    # 1 itself is the rank from which on units stay
    return np.where(stays, 1 + bounded, np.minimum(bounded, np.nextafter(1, 0)))


def _count_adjusted(ranks: Scores, keep: Keep) -> int:
    """How many units of the ranked groups `keep` treats otherwise than the ranks say."""
    kept, adjusted = dict(keep.kept), 0
    for group, values in ranks.items():
        stays = np.ones(len(values), dtype=bool)
        if group in kept:
            stays[:] = False
            stays[list(kept[group])] = True
        adjusted += int((stays != (values >= 1)).sum())
    return adjusted
