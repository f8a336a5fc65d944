"""Soft pruning: SFP, ASFP, SRFP, ASRFP. Again and again the smallest filters are shrunk, and all go on training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import expm1
from typing import Any, ClassVar

import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Context, Note, Scores, Stage
from autoprune.methods.base.staged import Decided
from autoprune.methods.base.units import Units, length
from autoprune.schema import within

#: Share of the training done -> a factor.
Course = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class SFP(Decided):
    """At evenly spread moments the filters of smallest L2 norm become zero; nothing keeps them from growing back.

    The four methods of this family are a course of the pruning rate, constant or rising, times a course of the factor
    by which weights are multiplied, zero or falling to zero. The target and the norms before the stage decide how many
    filters a group loses in the end, as the papers fix the rate of each layer; the norms at the last moment decide
    which ones. Biases and norms are left alone. The papers prune before training and after every epoch, for
    100 or 200 epochs; here it is `prunes` times in the stage, however long, and once before.

    Fields:
        share: share of the training images spent so; the papers do not fine-tune after the last moment (share 1).
        prunes: how often filters are shrunk.
    """

    name: ClassVar[str] = "sfp"
    source: ClassVar[str] = "He et al., Soft Filter Pruning, IJCAI 2018, algorithm 1"
    summary: ClassVar[str] = "soft pruning: the smallest filters are zeroed again and again while all train"

    prunes: int = field(default=10, metadata=within(1, 1000, log=True, search=(5, 100)))

    def rate(self, done: float) -> float:
        """Share of the filters to be pruned that are shrunk when the share `done` of the stage is over."""
        return 1.0

    def factor(self, done: float) -> float:
        """What their weights are multiplied by; 0 at the end."""
        return 0.0

    def sparsify(self, context: Context, stage: Stage) -> SoftPruning:
        """The shrinking, for the widths that the target asks for."""
        units = self.units(context)
        keep = allocate(context.graph, self.score(context), stage.target, stage.allocation)
        return SoftPruning(units, units.lost(keep), self.prunes, self.rate, self.factor)

    def score(self, context: Context) -> Scores:
        """s(u) = sum over the unit's filters f of ||f||_2."""
        units = self.units(context)
        return units.scores(units.total(context.model, length))


@dataclass(frozen=True, kw_only=True)
class ASFP(SFP):
    """SFP in which more and more filters are zeroed: early, when much is still learned, little is lost.

    Fields:
        knee: share of the stage after which three quarters of the rate are reached (D of the paper).
    """

    name: ClassVar[str] = "asfp"
    source: ClassVar[str] = "He et al., Asymptotic Soft Filter Pruning, IEEE Transactions on Cybernetics 2019, eq. 4"
    summary: ClassVar[str] = "soft pruning at a rising rate"

    knee: float = field(default=0.125, metadata=within(0.02, 0.7, search=(0.05, 0.5)))

    def rate(self, done: float) -> float:
        """Rises from 0 to 1, through 3/4 at the knee."""
        return rise(done, self.knee)


@dataclass(frozen=True, kw_only=True)
class SRFP(SFP):
    """SFP in which weights are not zeroed but shrunk, by a factor that falls to zero.

    Multiplying by alpha is a step of an L2 penalty of (1 - alpha) / learning rate, which grows as alpha falls: the
    incremental regularisation of the title. The paper's own course of alpha could not be read; this one has the form of
    ASFP's rate, which is a reconstruction.

    Fields:
        start: the factor at the beginning.
        knee: share of the stage after which it has fallen to a quarter of that.
    """

    name: ClassVar[str] = "srfp"
    source: ClassVar[str] = (
        "Cai et al., Softer Pruning, Incremental Regularization, ICPR 2020; course of alpha reconstructed"
    )
    summary: ClassVar[str] = "softer pruning: the smallest filters are shrunk, more and more"

    start: float = field(default=0.5, metadata=within(0.05, 1, search=(0.1, 1)))
    knee: float = field(default=0.125, metadata=within(0.02, 0.7, search=(0.05, 0.5)))

    def factor(self, done: float) -> float:
        """Falls from `start` to 0, through a quarter of it at the knee."""
        return self.start * (1 - rise(done, self.knee))


@dataclass(frozen=True, kw_only=True)
class ASRFP(SRFP):
    """SRFP at ASFP's rising rate."""

    name: ClassVar[str] = "asrfp"
    summary: ClassVar[str] = "softer pruning at a rising rate"

    def rate(self, done: float) -> float:
        """Rises from 0 to 1, through 3/4 at the knee."""
        return rise(done, self.knee)


def rise(done: float, knee: float) -> float:
    """(1 - exp(-k t)) / (1 - exp(-k)) with k such that it is 3/4 at t = `knee`; 0 at 0, 1 at 1."""
    k = _steepness_for_knee(knee)
    return expm1(-k * done) / expm1(-k)


@lru_cache
def _steepness_for_knee(knee: float) -> float:
    return float(brentq(lambda k: expm1(-k * knee) / expm1(-k) - 0.75, 1e-6, 100 / knee))


def limit_rows(gradient: Tensor, limited: Tensor) -> None:
    """Scale down, in place, rows that are `limited` and longer than the longest of the others.

    Behind a filter of zeros batch norm divides by sqrt(eps): where its shift is positive, the filter's gradient is some
    300 times that of the others, and so is its norm a few steps later, so that next time the others are the small ones.
    Without the limit the longest filter of ResNet-20's first layer grew from 3 to 647 in 100 steps on CIFAR-10 at a
    learning rate of 0.03, and accuracy fell to 18 %.
    """
    lengths = length(gradient.reshape(len(gradient), -1))
    limit = torch.where(limited, 0.0, lengths).max()
    factor = torch.where(limited & (lengths > limit), limit / lengths.clamp_min(1e-30), 1.0)
    gradient.mul_(factor.view(-1, *(1 for _ in gradient.shape[1:])))


class SoftPruning:
    """The shrinking of filters during a stage of soft pruning.

    Args:
        units: whose filters are shrunk.
        lost: how many units each group loses in the end, a vector over units.
        prunes: moments in the stage; the last is its end.
        rate, factor: courses over the stage, see `SFP`.
    """

    def __init__(self, units: Units, lost: Tensor, prunes: int, rate: Course, factor: Course) -> None:
        self.units, self.lost, self.prunes, self.rate, self.factor = units, lost, prunes, rate, factor
        self.small = units.full(0) > 0

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """The moment before training; then, every time, no shrunk filter may move faster than the others."""
        if step == 0:
            self._shrink_smallest(model, 0.0)
        for parameter, dim, units in self.units.parameters(model):
            if parameter.grad is not None:
                limit_rows(parameter.grad.movedim(dim, 0), self.small[units])

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Shrink if this step ends one of the equal parts of the stage."""
        before, after = (number * self.prunes // steps for number in (step, step + 1))
        if after > before:
            self._shrink_smallest(model, after / self.prunes)

    def _shrink_smallest(self, model: nn.Module, done: float) -> None:
        """The smallest filters of every group, as many as the rate says, are multiplied by the factor."""
        norms, factor = self.units.total(model, length), self.factor(done)
        self.small = (self.units.positions(norms) < (self.lost * self.rate(done) + 1e-9).long()) & (factor < 1)
        self.small[-1] = False
        self.units.scale(model, torch.where(self.small, factor, 1.0))

    def keep(self) -> Keep:
        """All filters that the last moment did not shrink."""
        return self.units.without(self.small)

    def notes(self, model: nn.Module) -> dict[str, Note]:
        """Nothing beside what is kept."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The filters that were shrunk last, and how many have to go: both follow from weights that are no more."""
        return {"small": self.small.tolist(), "lost": self.lost.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.small, self.lost = (torch.tensor(state[name], device=self.units.device) for name in ("small", "lost"))
