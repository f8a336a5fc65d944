"""IncReg: every unit has a penalty of its own, raised or lowered by its rank; at the ceiling the unit is removed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Context, Note, Scores, Stage
from autoprune.methods.base.staged import ConstantRate, Decided
from autoprune.methods.base.units import Units, magnitude
from autoprune.schema import within


@dataclass(frozen=True, kw_only=True)
class IncReg(ConstantRate, Decided):
    """Penalties rise for units that rank low in their group, fall for the others, and may fall to zero again.

    At every update units are ranked by L1 norm; h is the mean of a unit's ranks so far. The penalty of the unit that is
    j-th by h changes by `increment(j)`, which is A at 0, zero at R (the units of its group still to be removed) and
    negative beyond. A unit whose penalty reaches the ceiling is zero from then on. The paper counts columns of the
    weight matrix; here a unit is what can be removed for good. The paper has A = 2.5e-4 and an effective ceiling of
    6.1, so 24,500 steps for the first removal; here both are derived from the length of the stage, as for `greg1`.
    When the stage ends before all are removed, the units of lowest h go, and the notes say how many.

    Fields:
        share: share of the training images spent under the penalty.
        first: share of those steps after which a unit that ranked lowest throughout is removed.
        shrink: how many times smaller its weights have become by then, if only the penalty acts on them.
        bend: u of the paper, the curve's height at its bend relative to A.
        every: steps between two updates.
        lr: learning rate of the stage, constant.
    """

    name: ClassVar[str] = "increg"
    source: ClassVar[str] = (
        "Wang et al., Structured Pruning for Efficient ConvNets via Incremental Regularization, IJCNN 2019"
    )
    summary: ClassVar[str] = "a penalty per filter, raised and lowered by its mean rank"

    first: float = field(default=0.3, metadata=within(0.05, 0.9, search=(0.1, 0.6)))
    shrink: float = field(default=1000.0, metadata=within(2, 1e6, log=True, search=(10, 1e5)))
    bend: float = field(default=0.25, metadata=within(0.1, 0.5))
    every: int = field(default=5, metadata=within(1, 100, log=True, search=(1, 10)))
    lr: float = field(default=0.01, metadata=within(1e-4, 1, log=True, search=(1e-4, 0.05)))

    def sparsify(self, context: Context, stage: Stage) -> RankPenalty:
        """The penalty; how many units each group loses is decided now."""
        units = self.units(context)
        keep = allocate(context.graph, self.score(context), stage.target, stage.allocation)
        steps = max(1, round(self.first * stage.steps))
        ceiling = 2 * math.log(self.shrink) * (1 - stage.training.momentum) / (stage.training.lr * steps)
        raises = math.ceil(steps / self.every)
        return RankPenalty(
            units, units.lost(keep), amount=ceiling / raises, ceiling=ceiling, bend=self.bend, every=self.every
        )

    def score(self, context: Context) -> Scores:
        """s(u) = sum of |w| over all filters of the unit."""
        units = self.units(context)
        return units.scores(units.total(context.model, magnitude))


def increment(place: Tensor, left: Tensor, amount: float, bend: float) -> Tensor:
    """How the penalty of the unit at `place` (0 = weakest) changes when `left` > 0 units are still to be removed.

    amount * exp(-a j) up to the bend at j = N1, 2 u amount - amount * exp(-a (2 N1 - j)) beyond, with u = `bend`,
    a = ln(2 / u) / left, N1 = ln(1 / u) / a: zero at `left`.
    """
    slope = math.log(2 / bend) / left
    turn = math.log(1 / bend) / slope
    near = torch.exp(-slope * place)
    return amount * torch.where(place < turn, near, 2 * bend - torch.exp(-slope * (2 * turn - place)))


class RankPenalty:
    """The penalties of IncReg.

    Args:
        units: whose filters are under the penalty.
        lost: how many units each group loses, a vector over units.
        amount, bend: see `increment`.
        ceiling: the penalty at which a unit is removed.
        every: steps between two updates.
    """

    def __init__(self, units: Units, lost: Tensor, *, amount: float, ceiling: float, bend: float, every: int) -> None:
        self.units, self.lost = units, lost
        self.amount, self.ceiling, self.bend, self.every = amount, ceiling, bend, every
        self.updates = self.at_ceiling = self.at_end = 0
        self.penalty, self.mean_rank = units.full(0).double(), units.full(0).double()
        self.removed = units.full(0) > 0

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Update the penalties if it is time; gradient += penalty * weight."""
        if step % self.every == 0:
            self._update_penalties(model)
        self.units.pull(model, self.penalty.float())

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Removed units stay zero, whatever momentum does; at the end as many are removed as were wanted."""
        if step == steps - 1:
            weakest = self._place_in_group() < self._left_to_remove()
            self.at_end = int(weakest.sum())
            self.removed |= weakest
        self.units.scale(model, (~self.removed).float())

    def _update_penalties(self, model: nn.Module) -> None:
        self.updates += 1
        norms = torch.where(self.removed, -1.0, self.units.total(model, magnitude))
        self.mean_rank += (self.units.positions(norms) - self.mean_rank) / self.updates
        place, left = self._place_in_group(), self._left_to_remove()
        change = increment(place.double(), left.clamp_min(1).double(), self.amount, self.bend)
        self.penalty = torch.where((left > 0) & ~self.removed, (self.penalty + change).clamp_min(0), 0.0)
        self.penalty[-1] = 0
        gone = (self.penalty >= self.ceiling * (1 - 1e-9)) & (place < left)
        self.removed |= gone
        self.at_ceiling += int(gone.sum())

    def _place_in_group(self) -> Tensor:
        """Where each unit stands among the units alive of its group, by mean rank; removed ones stand behind."""
        return self.units.positions(torch.where(self.removed, torch.inf, self.mean_rank))

    def _left_to_remove(self) -> Tensor:
        """How many units of its group are still to be removed, a vector over units."""
        left = self.lost - self.units.spread(self.removed[self.units.table].sum(1))
        left[-1] = 0
        return left

    def keep(self) -> Keep:
        """All units that are not removed."""
        return self.units.without(self.removed)

    def notes(self, model: nn.Module) -> dict[str, Note]:
        """How many units reached the ceiling, and how many went when the stage ended."""
        return {"removed_at_ceiling": self.at_ceiling, "removed_at_end": self.at_end}

    def state_dict(self) -> dict[str, Any]:
        """Penalties, mean ranks, the removed units, how many have to be removed, and the counters."""
        vectors = {name: getattr(self, name).tolist() for name in ("penalty", "mean_rank", "removed", "lost")}
        return {**vectors, **{name: getattr(self, name) for name in ("updates", "at_ceiling", "at_end")}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("penalty", "mean_rank", "removed", "lost"):
            like = getattr(self, name)
            setattr(self, name, torch.tensor(state[name], dtype=like.dtype, device=like.device))
        for name in ("updates", "at_ceiling", "at_end"):
            setattr(self, name, state[name])
