"""Blends of criteria: a unit's score is a weighted mean of its ranks by the scores of several methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from autoprune.engine.allocation.allocate import allocate_by
from autoprune.engine.allocation.removal_order import rank_units, scale_by_group
from autoprune.engine.allocation.strategies import by_plain_scores, limits_of, strategy_of
from autoprune.engine.graph import ChannelGraph, Floats
from autoprune.errors import InputError
from autoprune.methods.base.method import Context, Method, Scores, Selection
from autoprune.methods.bn_scale import BNScale
from autoprune.methods.group_fisher import GroupFisher
from autoprune.methods.magnitude import FPGM, L1, L2
from autoprune.methods.taylor import Taylor
from autoprune.recipe import Allocation, Target
from autoprune.schema import choices, within

#: Methods that score a model as it is, by name: each with its defaults, and without its stage if it has one.
CRITERIA: dict[str, type[Method]] = {method.name: method for method in (L1, L2, FPGM, BNScale, Taylor, GroupFisher)}


@dataclass(frozen=True, kw_only=True)
class Blend(Method):
    """Weighted mean of ranks: s(u) = sum over criteria c of w_c r_c(u), over the sum of the weights.

    r_c(u) in (0, 1] is the rank of u among the units of all groups, the lowest first, over their number; equal units
    share their mean rank. Before that a criterion's scores are divided by what `normalise` says of their group, as the
    allocation `global` does it. So a blend of one criterion prunes what that criterion alone would under any
    allocation, and the weights lead from any of them to any other without a step. Were units ranked within their group
    alone, every blend under `global` would be `uniform`. Of the allocation, `normalise` has no say; all else has.

    A group that a criterion does not score (`bn_scale` where there is no batch norm) has the mean over the others.

    Fields:
        l1, l2, fpgm, bn_scale, taylor, group_fisher: weights of the criteria of these methods.
        normalise: what a group's scores are divided by before units are ranked.
    """

    name: ClassVar[str] = "blend"
    source: ClassVar[str] = "weighted Borda count over the criteria of the other methods; no paper"
    summary: ClassVar[str] = "weighted mean of the ranks that several criteria give"

    l1: float = field(default=1.0, metadata=within(0, 1))
    l2: float = field(default=0.0, metadata=within(0, 1))
    fpgm: float = field(default=1.0, metadata=within(0, 1))
    bn_scale: float = field(default=0.0, metadata=within(0, 1))
    taylor: float = field(default=1.0, metadata=within(0, 1))
    group_fisher: float = field(default=0.0, metadata=within(0, 1))
    normalise: str = field(default="mean", metadata=choices("none", "mean", "max", "std"))

    def weights(self) -> dict[str, float]:
        """Criterion -> weight."""
        return {name: getattr(self, name) for name in CRITERIA}

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those that one of the criteria with a weight scores."""
        weighed = [CRITERIA[name]() for name, weight in self.weights().items() if weight > 0]
        scored = {group for criterion in weighed for group in criterion.groups(context)}
        return tuple(group.id for group in context.graph.prunable if group.id in scored)

    def score(self, context: Context) -> Scores:
        """s(u); criteria of weight 0 are not computed.

        Raises:
            InputError: all weights are 0. That is a corner of every space that searches all of them, so the method
                itself may have such weights.
        """
        if not any(self.weights().values()):
            raise InputError("all weights are 0", where="method", allowed=f"one above 0 of {', '.join(CRITERIA)}")
        total, weighed = np.zeros(context.graph.unit_count), np.zeros(context.graph.unit_count)
        for name, weight in self.weights().items():
            if weight > 0:
                for group, ranks in _ranks(context.graph, context.scores_by(CRITERIA[name]()), self.normalise).items():
                    units = context.graph.by_id[group].units
                    total[units] += weight * ranks
                    weighed[units] += weight
        scored = [group for group in context.graph.prunable if weighed[group.units[0]] > 0]
        return {group.id: total[group.units] / weighed[group.units] for group in scored}

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """Allocate the blended ranks as they are: they are comparable between groups."""
        strategy = by_plain_scores(strategy_of(allocation))
        return Selection(allocate_by(context.graph, scores, target, strategy, limits_of(allocation)))


def _ranks(graph: ChannelGraph, scores: Scores, normalise: str) -> Scores:
    """The rank of every unit among the units of all groups that have scores, over their number."""
    scales = scale_by_group(rank_units(graph, scores), normalise)
    scale_of = {group.id: scale for group, scale in zip(graph.prunable, scales, strict=True)}
    parts = {group: np.asarray(values) / scale_of[group] for group, values in scores.items()}
    ranks = mean_ranks(np.concatenate(list(parts.values()))) / sum(map(len, parts.values()))
    ends = np.cumsum([len(values) for values in parts.values()])[:-1]
    return dict(zip(parts, np.split(ranks, ends), strict=True))


def mean_ranks(values: Floats) -> Floats:
    """Ranks from 1, the lowest first, shape (n,); equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks
