"""GReg-1 and GReg-2: an L2 penalty on the filters to be pruned that grows until they are gone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Context, Note, Scores, Stage
from autoprune.methods.base.staged import ConstantRate, Decided
from autoprune.methods.base.units import Units, count, magnitude
from autoprune.recipe import Training
from autoprune.schema import choices, within


@dataclass(frozen=True, kw_only=True)
class GReg1(ConstantRate, Decided):
    """The filters of least mean |w| are chosen before the stage; their penalty grows linearly, then stays a while.

    The gradient of a weight of unit u grows by lambda_u * w. lambda_u starts at 0 and is raised by d every `every`
    steps until it reaches tau. The paper has tau = 1 and d = 1e-4 for 100,000 steps, and its code stops once pruned
    filters are 1,000 times smaller than the others. Here both are derived from the length of the stage, so that 300
    steps do the same: tau shrinks a weight without a gradient of its own `shrink` times while the penalty grows, d
    reaches tau in the share `growth` of the steps. The rest of the steps stabilise, at constant penalty.

    Fields:
        share: share of the training images spent under the penalty.
        growth: share of those steps in which the penalty grows.
        shrink: how many times smaller a pruned weight has become when the growth ends, if only the penalty acts on it.
        every: steps between two raises (K_u).
        lr: learning rate of the stage, constant.
        press: the penalty acts on `filters`, as in the paper, or on `norms` as well: scales and shifts of the batch
            norms behind them. Batch norm undoes the shrinking of a filter, and the smaller that is the larger its
            gradient: in 200 steps on CIFAR-10's ResNet-20 filters became 30 to 50 times smaller, whatever the penalty,
            which after batch norm is no change at all. Scales have no such way out.
    """

    name: ClassVar[str] = "greg1"
    source: ClassVar[str] = (
        "Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, section 3.2; lengths scaled"
    )
    summary: ClassVar[str] = "growing L2 penalty on the smallest filters until they are gone"

    growth: float = field(default=0.7, metadata=within(0.1, 1, search=(0.5, 0.8)))
    shrink: float = field(default=1000.0, metadata=within(2, 1e6, log=True, search=(10, 1e5)))
    every: int = field(default=5, metadata=within(1, 100, log=True, search=(1, 20)))
    lr: float = field(default=0.01, metadata=within(1e-4, 1, log=True, search=(1e-4, 0.05)))
    press: str = field(default="norms", metadata=choices("norms", "filters"))

    def pressed(self, context: Context, units: Units) -> Units:
        """The units, with the tensors that the penalty acts on."""
        roles = ("out", "scale", "shift") if self.press == "norms" else ("out",)
        return Units.of(context.model, context.graph, units.groups, roles)

    def sparsify(self, context: Context, stage: Stage) -> Growth:
        """The penalty, with the filters to be pruned chosen now."""
        units = self.units(context)
        chosen = allocate(context.graph, self.score(context), stage.target, stage.allocation)
        return Growth(units, self.pressed(context, units), self.schedule(stage), removed=units.outside(chosen))

    def schedule(self, stage: Stage) -> Schedule:
        """When the penalty is raised, and by how much."""
        steps = max(1, round(self.growth * stage.steps))
        ceiling = _ceiling_to_shrink(self.shrink, steps, stage.training)
        return Schedule(every=self.every, step=ceiling / math.ceil(steps / self.every), ceiling=ceiling)

    def score(self, context: Context) -> Scores:
        """s(u) = mean |w| over all filters of the unit."""
        units = self.units(context)
        return units.scores(_mean_magnitude(context.model, units))


@dataclass(frozen=True, kw_only=True)
class GReg2(GReg1):
    """First the penalty grows on all filters alike; the filters that are smallest by then are chosen for GReg-1.

    Under an equal penalty weights of low curvature shrink more (w' = h / (h + lambda) w, h the Hessian), so that a
    choice by magnitude is a choice by curvature as well. In the second part kept filters get lambda = -weight decay,
    which cancels it.

    Fields:
        pick: share of the growing steps in which the penalty grows on all.
        pick_shrink: how many times smaller a weight without a gradient becomes by then. The paper's numbers
            (lambda to 0.01 in 10,000 steps) give 1.6.
    """

    name: ClassVar[str] = "greg2"
    source: ClassVar[str] = (
        "Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, section 3.3; lengths scaled"
    )
    #: ResNet-20 at half of the FLOPs, seed 0, 100 steps of 16 images: 36 %, where `l1` has 69 % and `greg1` 60 %. The
    #: shortest trials in a ready space that has it are of 390 steps; with 780 of 128 images it is level with `l1`
    #: (analysis/claims/methods_cifar10.md).
    least_steps: ClassVar[int] = 390
    summary: ClassVar[str] = "growing L2 penalty, first on all filters to tell them apart, then on the smallest"

    pick: float = field(default=0.2, metadata=within(0.05, 0.9, search=(0.05, 0.4)))
    pick_shrink: float = field(default=1.6, metadata=within(1.01, 100, log=True, search=(1.1, 10)))

    def sparsify(self, context: Context, stage: Stage) -> Growth:
        """The penalty; the filters to be pruned are chosen when the first part ends."""
        units = self.units(context)
        growing = max(2, round(self.growth * stage.steps))
        picking = min(growing - 1, max(1, round(self.pick * growing)))
        picked_at = _ceiling_to_shrink(self.pick_shrink, picking, stage.training)
        ceiling = _ceiling_to_shrink(self.shrink, growing - picking, stage.training, start=picked_at)
        raises = [math.ceil(part / self.every) for part in (picking, growing - picking)]
        return Growth(
            units,
            self.pressed(context, units),
            Schedule(every=self.every, step=(ceiling - picked_at) / raises[1], ceiling=ceiling),
            pick=Schedule(every=self.every, step=picked_at / raises[0], ceiling=picked_at),
            choose=lambda scores: allocate(context.graph, scores, stage.target, stage.allocation),
            recover=-stage.training.weight_decay,
        )


@dataclass(frozen=True)
class Schedule:
    """A penalty that is raised by `step` every `every` steps until it has reached `ceiling`."""

    every: int
    step: float
    ceiling: float


def _ceiling_to_shrink(shrink: float, steps: int, training: Training, start: float = 0.0) -> float:
    """The penalty at the end of a linear growth from `start` that shrinks a free weight `shrink` times in `steps`.

    A step multiplies the weight by about 1 - rate * lambda, with rate = lr / (1 - momentum): in all by
    exp(-rate * steps * (start + end) / 2).
    """
    rate = training.lr / (1 - training.momentum)
    return max(start, 2 * math.log(shrink) / (rate * steps) - start)


def _mean_magnitude(model: nn.Module, units: Units) -> Tensor:
    return units.total(model, magnitude) / units.total(model, count).clamp_min(1)


class Growth:
    """The growing penalty of GReg.

    Args:
        units: whose filters are compared.
        pressed: the same units with all that is under the penalty.
        schedule: of the penalty on what is to be pruned.
        removed: bool vector over units; None = chosen by `choose` after `pick`.
        pick: schedule of the penalty on all, before the choice.
        choose: scores -> what is kept.
        recover: the penalty on what is kept, after the choice.
    """

    def __init__(
        self,
        units: Units,
        pressed: Units,
        schedule: Schedule,
        *,
        removed: Tensor | None = None,
        pick: Schedule | None = None,
        choose: Callable[[Scores], Keep] | None = None,
        recover: float = 0.0,
    ) -> None:
        self.units, self.pressed, self.schedule, self.removed = units, pressed, schedule, removed
        self.pick, self.choose, self.recover = pick, choose, recover
        self.penalty = 0.0
        self.strength = self._penalty_per_unit()

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Raise the penalty if it is time; gradient += penalty * weight."""
        if step % self.schedule.every == 0:
            self._raise_penalty(model)
        self.pressed.pull(model, self.strength)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Choose now at the latest: a stage may be too short for its first part."""
        if step == steps - 1 and self.removed is None:
            self._choose_removed(model)

    def _raise_penalty(self, model: nn.Module) -> None:
        if self.removed is None and self.pick is not None and self.penalty >= self.pick.ceiling * (1 - 1e-9):
            self._choose_removed(model)
        schedule = self.schedule if self.removed is not None else self.pick
        if schedule is not None and self.penalty < schedule.ceiling * (1 - 1e-9):
            self.penalty += schedule.step
        self.strength = self._penalty_per_unit()

    def _choose_removed(self, model: nn.Module) -> None:
        assert self.choose is not None  # given wherever `removed` is not
        self.removed = self.units.outside(self.choose(self.units.scores(_mean_magnitude(model, self.units))))

    def _penalty_per_unit(self) -> Tensor:
        """The penalty of every unit."""
        strength = self.units.full(self.penalty)
        if self.removed is not None:
            strength = torch.where(self.removed, strength, self.recover)
        strength[-1] = 0
        return strength

    def keep(self) -> Keep:
        """All units that were not chosen for pruning."""
        return self.units.without(self._units_to_remove())

    def notes(self, model: nn.Module) -> dict[str, Note]:
        """`kept_over_pruned`: mean |w| of kept over that of pruned filters at the end; the paper stops at 1,000."""
        return {"kept_over_pruned": self.separation(model)}

    def separation(self, model: nn.Module) -> float:
        """Mean |w| over the kept filters over that of those to be pruned."""
        means, gone = _mean_magnitude(model, self.units), self._units_to_remove()
        inside = self.units.table[self.units.table < self.units.count]
        kept, pruned = (means[inside[gone[inside] == lost]] for lost in (False, True))
        return float(kept.mean() / pruned.mean().clamp_min(1e-30)) if len(pruned) and len(kept) else 1.0

    def _units_to_remove(self) -> Tensor:
        assert self.removed is not None, "the stage has not ended"
        return self.removed

    def state_dict(self) -> dict[str, Any]:
        """The penalty reached, and what was chosen."""
        return {"penalty": self.penalty, "removed": None if self.removed is None else self.removed.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        removed = state["removed"]
        self.penalty = state["penalty"]
        self.removed = None if removed is None else torch.tensor(removed, device=self.units.device)
        self.strength = self._penalty_per_unit()
