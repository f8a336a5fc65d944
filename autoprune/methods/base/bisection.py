"""For methods that find widths themselves: one scalar of theirs is bisected to the target, the last units are filled.

Such a method gives ranks, one per unit, for every value of its scalar: 1 or more where it keeps the unit; among those
that it keeps, and among those that it does not, the lower rank goes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoprune.engine.allocation.allocate import TOLERANCE, allocate_by, excess
from autoprune.engine.allocation.strategies import Global, limits_of
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.graph import ChannelGraph, Floats
from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Scores
from autoprune.recipe import Allocation, Target

#: How often the range of the scalar is halved.
HALVINGS = 12


@dataclass(frozen=True)
class Landing:
    """Where the bisection ended.

    Fields:
        value: of the scalar.
        keep: what is kept.
        adjusted: units that are kept though the method at this value would not, or the other way round.
    """

    value: float
    keep: Keep
    adjusted: int


def land(
    graph: ChannelGraph,
    ranks_at: Callable[[float], Scores],
    target: Target,
    how: Allocation,
    low: float,
    high: float,
) -> Landing:
    """The value between `low` and `high` that meets the target, or comes nearest to it.

    What is kept for a value is what the method keeps, with the next-ranked units up to the next width that the
    allocation allows. Where that jumps over the target's tolerance, units come or go in the order of the ranks at the
    nearest value, all groups together. Strategy and normalisation of the allocation have no say; its limits have.

    Args:
        graph: of the model that is cut.
        ranks_at: the ranks for a value of the scalar; the higher the value, the fewer units should be kept (where more
            are, that is no error: the nearest of all values that were tried is taken).
        target: for that graph.
        how: the groups that it excludes, its smallest widths and `round_to` are honoured.
        low, high: range of the scalar.

    Raises:
        TargetError: the target is out of reach, or no widths come near enough.
    """
    tried = []
    for _ in range(HALVINGS):
        value = (low + high) / 2
        landing, over = at(graph, ranks_at(value), target, how, value)
        if abs(over) <= TOLERANCE:
            return landing
        tried.append((abs(over), value))
        low, high = (value, high) if over > 0 else (low, value)
    nearest = min(tried)[1]
    return filled(graph, ranks_at(nearest), target, how, nearest)


def at(graph: ChannelGraph, ranks: Scores, target: Target, how: Allocation, value: float) -> tuple[Landing, float]:
    """What the method keeps at one value, at widths that are allowed, and how far the target is overshot then."""
    kept = {}
    for group, widths in _open(graph, ranks, how).items():
        wanted = int((ranks[group] >= 1).sum())
        width = int(widths[widths >= wanted][0])
        if width < widths[-1]:
            kept[group] = np.argsort(ranks[group], kind="stable")[len(ranks[group]) - width :].tolist()
    keep = Keep.of(kept)
    return Landing(value, keep, _differ(graph, ranks, keep)), excess(graph, keep, target)


def filled(graph: ChannelGraph, ranks: Scores, target: Target, how: Allocation, value: float) -> Landing:
    """The units that rank highest, all groups together, as many as the target allows."""
    open_ = {group: ranks[group] for group in _open(graph, ranks, how)}
    keep = allocate_by(graph, open_, target, Global(normalise="none"), limits_of(how))
    return Landing(value, keep, _differ(graph, ranks, keep))


def ranked(stays: np.ndarray, values: Floats) -> Floats:
    """Ranks of one group: by `values` (at least 0, maybe infinite), those that stay above those that do not."""
    bounded: Floats = 1 - 1 / (1 + values)
    # 1 itself is the rank from which on units stay
    return np.where(stays, 1 + bounded, np.minimum(bounded, np.nextafter(1, 0)))


def _open(graph: ChannelGraph, ranks: Scores, how: Allocation) -> dict[str, np.ndarray]:
    """The widths of the groups that may become narrower."""
    widths = allowed_widths(graph, how, ranks)
    return {group: widths[group] for group in ranks if len(widths[group]) > 1}


def _differ(graph: ChannelGraph, ranks: Scores, keep: Keep) -> int:
    """How many units of the ranked groups `keep` treats otherwise than the ranks say."""
    kept, differ = dict(keep.kept), 0
    for group, values in ranks.items():
        stays = np.ones(len(values), dtype=bool)
        if group in kept:
            stays[:] = False
            stays[list(kept[group])] = True
        differ += int((stays != (values >= 1)).sum())
    return differ
