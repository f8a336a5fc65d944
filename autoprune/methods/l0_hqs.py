"""L0-HQS: an L0 penalty, solved by half-quadratic splitting, tears saliencies apart until the threshold is plain."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import TOLERANCE, allocate, excess
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.graph import ChannelGraph, Floats
from autoprune.engine.keep import Keep
from autoprune.methods.base.method import Context, Scores, Selection, Stage
from autoprune.methods.base.staged import ConstantRate, Staged
from autoprune.methods.base.units import Units, along, count, in_scope
from autoprune.recipe import Allocation, Target
from autoprune.schema import within

#: The ratio of two neighbouring saliencies from which on the threshold between them is called clear.
CLEAR = 10.0
#: Added to saliencies before ratios are taken, as a share of their group's largest: no ratio exceeds 1 + 1 / this.
LIFT = 1e-3


@dataclass(frozen=True, kw_only=True)
class L0HQS(ConstantRate, Staged):
    """min over theta, V of loss + sum over groups of lambda ||V||_0 + beta / 2 ||theta - V||^2, while beta grows.

    The paper's full text was not within reach: this is a reconstruction from its abstract on the scheme that it cites,
    half-quadratic splitting with continuation (Xu et al., Image Smoothing via L0 Gradient Minimization, 2011, algorithm
    1). theta of a unit: scales and shifts of its normalisation layers if it has any, else its filters and their biases;
    all producers of a coupled unit together. Its saliency s is the root mean square of theta. In K equal parts of the
    stage, k = 0 ... K - 1:

        V-step, at the start: V = theta where s > tau_k = sqrt(2 lambda / beta_k), else 0.
        W-step, after every step of the optimiser: theta <- (theta + eta beta_k V) / (1 + eta beta_k).

    So units above the threshold are held where they are, not shrunk; units below it are drawn to zero. The optimiser's
    momentum and weight decay are the recipe's throughout.

    Our choices: tau_0 of a group lies half-way (geometric mean) between what the allocation would prune and keep of the
    saliencies at the start, lambda = beta_0 tau_0^2 / 2, beta_k = beta_0 kappa^k with kappa = rho^(2 / (K - 1)), and
    beta_0 is such that what is drawn to zero against no gradient falls rho^(c / (K - 1)) times in the first part: c
    times as fast as the threshold, on a logarithmic scale. To first order beta_0 = c ln(rho) / ((K - 1) T eta), with T
    steps per part. A stage of fewer than K steps has one part per step.

    Fields:
        share: share of the training images spent under the penalty.
        stages: K.
        ratio: rho, how many times lower the last threshold is than the first.
        capture: c, the margin of the pull over the fall of the threshold.
        lr: eta, the learning rate of the stage, constant.
        scope: which groups are pruned: `faithful` = channels that one layer alone makes, `coupled` = all.
    """

    name: ClassVar[str] = "l0_hqs"
    source: ClassVar[str] = (
        "Li and Xu, Providing clear pruning threshold, IET Image Processing 15(2), 2021; our reconstruction"
    )
    summary: ClassVar[str] = "L0 penalty by half-quadratic splitting, cut where saliencies have come apart"

    share: float = field(default=0.5, metadata=within(0.05, 0.95, search=(0.2, 0.9)))
    stages: int = field(default=20, metadata=within(4, 40, search=(8, 40)))
    ratio: float = field(default=10.0, metadata=within(2, 30, log=True))
    capture: float = field(default=3.0, metadata=within(1.1, 10, log=True))
    lr: float = field(default=0.01, metadata=within(1e-4, 0.1, log=True, search=(1e-3, 0.05)))

    def sparsify(self, context: Context, stage: Stage) -> Splitting:
        """The penalty, its thresholds read off the saliencies of now."""
        units = gates(context.model, context.graph, self.scope)
        before = units.scores(saliency(context.model, units))
        keep = allocate(context.graph, before, stage.target, stage.allocation)
        schedule = Schedule(min(self.stages, stage.steps), stage.steps, self.ratio, self.capture, stage.training.lr)
        return Splitting(context.model, units, schedule, stage, before, keep)

    def score(self, context: Context) -> Scores:
        """s(u) = root mean square of the unit's scales and shifts, or of its filters and biases without any."""
        units = gates(context.model, context.graph, self.scope)
        return units.scores(saliency(context.model, units))

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """Every group cut at its widest gap; if one is not clear, or the target is missed: the scores allocated.

        `gap_before`, `gap_after`: ratio of the saliencies on the two sides of the cut, of the dense model and of the
        trained one; geometric mean over the groups that lose units, 1 without any. `gap_violated`: the cut was not made
        at the gaps, because one was not clear or together they missed the target. Without a stage there are no notes.
        """
        regulariser = context.regulariser
        if not isinstance(regulariser, Splitting):
            return super().select(context, scores, target, allocation)
        clear = _at_gaps(context.graph, scores, target, allocation, regulariser.pulled)
        keep = allocate(context.graph, scores, target, allocation) if clear is None else clear
        before, after = _mean_gap(regulariser.before, keep), _mean_gap(scores, keep)
        return Selection(keep, {"gap_before": before, "gap_after": after, "gap_violated": keep != clear})


# ---- saliencies ------------------------------------------------------------------------------------------------------


def gates(model: nn.Module, graph: ChannelGraph, scope: str) -> Units:
    """The tensors that switch units of a scope off: scales and shifts of their normalisation, or filters and biases."""
    groups = in_scope(model, graph, scope)
    normed = {unit for slot in graph.slots if slot.role == "scale" for unit in slot.units.tolist()}
    behind = [group for group in groups if int(group.units[0]) in normed]
    bare = [group for group in groups if int(group.units[0]) not in normed]
    parts = Units.of(model, graph, behind, ("scale", "shift")), Units.of(model, graph, bare, ("out", "bias"))
    return Units(groups, parts[0].slots + parts[1].slots, graph.unit_count)


def saliency(model: nn.Module, units: Units) -> Tensor:
    """||theta||_2 / sqrt(entries of theta), vector over units."""
    squares = units.total(model, lambda rows: rows.square().sum(1))
    return (squares / units.total(model, count).clamp_min(1)).sqrt()


# ---- gaps ------------------------------------------------------------------------------------------------------------


def gaps(values: Floats) -> Floats:
    """Ratios of neighbours in ascending order, all lifted by `LIFT` of the largest: (units,) -> (units - 1,).

    Entry i is the gap below which i + 1 units lie.
    """
    ordered = np.sort(values)
    if ordered[-1] == 0:
        return np.ones(len(ordered) - 1)
    lifted = ordered + LIFT * ordered[-1]
    ratios: Floats = lifted[1:] / lifted[:-1]
    return ratios


def _mean_gap(scores: Scores, keep: Keep) -> float:
    """Geometric mean, over the groups that lose units, of the gap at their cut."""
    cuts = [gaps(scores[group])[len(scores[group]) - len(kept) - 1] for group, kept in keep.kept]
    return math.exp(float(np.mean(np.log(cuts)))) if cuts else 1.0


def _at_gaps(
    graph: ChannelGraph, scores: Scores, target: Target, allocation: Allocation, pulled: tuple[str, ...]
) -> Keep | None:
    """These groups cut at their widest gaps; None if one is not clear or the target is missed."""
    widths, kept = allowed_widths(graph, allocation, scores), {}
    for group in pulled:
        size = len(scores[group])
        narrower = widths[group][widths[group] < size]
        ratios = gaps(scores[group])[size - narrower - 1]
        if ratios.max(initial=1.0) < CLEAR:
            return None
        kept[group] = np.argsort(scores[group], kind="stable")[size - narrower[ratios.argmax()] :]
    keep = Keep.of({group: positions.tolist() for group, positions in kept.items()})
    return keep if not pulled or abs(excess(graph, keep, target)) <= TOLERANCE else None


# ---- the penalty -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """Strengths and thresholds of the parts of a stage.

    Fields:
        stages: K, at most `steps`.
        steps: of the whole stage.
        ratio: rho. capture: c. rate: eta.
    """

    stages: int
    steps: int
    ratio: float
    capture: float
    rate: float

    @cached_property
    def starts(self) -> dict[int, int]:
        """First step of a part -> number of the part. Parts differ by one step where K does not divide the steps."""
        return {k * self.steps // self.stages: k for k in range(self.stages)}

    @property
    def falls(self) -> int:
        """How often the threshold falls, K - 1; a stage with a single part pulls as if it fell once."""
        return max(1, self.stages - 1)

    def strength(self, k: int) -> float:
        """beta_k = beta_0 kappa^k.

        In a part a weight without a gradient falls (1 + eta beta)^T times, which is less than exp(eta beta T): beta_0
        is solved for that, so that short parts capture too. T is that of the shortest part.
        """
        first = math.expm1(self.capture * math.log(self.ratio) / (self.falls * (self.steps // self.stages))) / self.rate
        return first * self.ratio ** (2 * k / self.falls)

    def fall(self, k: int) -> float:
        """tau_k / tau_0 = sqrt(2 lambda / beta_k) / tau_0, with lambda = beta_0 tau_0^2 / 2."""
        return math.sqrt(self.strength(0) / self.strength(k))


class Splitting:
    """The pull towards V.

    Args:
        model: at the start of the stage.
        units: with the parameters that are theta.
        schedule: of beta and tau.
        stage: the penalty works for.
        before: saliencies at the start.
        keep: what the allocation makes of them: it sets the thresholds and is the first V-step's choice.
    """

    def __init__(
        self, model: nn.Module, units: Units, schedule: Schedule, stage: Stage, before: Scores, keep: Keep
    ) -> None:
        self.units, self.schedule, self.stage, self.before = units, schedule, stage, before
        self.pulled = tuple(group for group, _ in keep.kept)
        self.attracted = units.outside(keep)
        self.thresholds = self._first_thresholds(keep)
        self.anchors = [parameter.detach().clone() for parameter, _, _ in units.parameters(model)]
        self.part = -1
        self.weights: list[Tensor] = []

    def _first_thresholds(self, keep: Keep) -> Tensor:
        """tau_0, vector over units: geometric mean of the two sides of the cut; 0 where nothing is to go."""
        kept, taus = dict(keep.kept), self.units.full(0)
        for group, members in zip(self.units.groups, self.units.members, strict=True):
            if group.id in kept:
                lost = group.size - len(kept[group.id])
                below, above = np.sort(self.before[group.id])[lost - 1 : lost + 1]
                taus[members] = math.sqrt(below * above)
        return taus

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """The V-step, where a part begins."""
        if step in self.schedule.starts:
            self._take_v_step(model, self.schedule.starts[step])

    def _take_v_step(self, model: nn.Module, part: int) -> None:
        self.part = part
        if part:  # the first choice is the allocation's, which tells equal saliencies apart: from scratch all are
            self.attracted = saliency(model, self.units) <= self.thresholds * self.schedule.fall(part)
        stays = (~self.attracted).float()
        for anchor, (parameter, dim, units) in zip(self.anchors, self.units.parameters(model), strict=True):
            torch.mul(parameter.detach(), along(stays[units], parameter, dim), out=anchor)
        self._weigh_pull(model)

    def _weigh_pull(self, model: nn.Module) -> None:
        """The share of the way to V that a step goes: eta beta / (1 + eta beta), 0 for what belongs to no unit."""
        pull = self.schedule.rate * self.schedule.strength(self.part)
        weight = self.units.full(pull / (1 + pull))
        weight[-1] = 0
        self.weights = [along(weight[units], parameter, dim) for parameter, dim, units in self.units.parameters(model)]

    @torch.no_grad()
    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """The W-step's share of the penalty: theta <- (theta + eta beta V) / (1 + eta beta)."""
        if not self.weights:  # resumed in the middle of a part
            self._weigh_pull(model)
        parameters = [parameter for parameter, _, _ in self.units.parameters(model)]
        torch._foreach_lerp_(parameters, self.anchors, self.weights)

    def state_dict(self) -> dict[str, Any]:
        """V, the thresholds and the groups that have one, the part that runs, and the saliencies at the start."""
        return {
            "pulled": list(self.pulled),
            "part": self.part,
            "anchors": [anchor.tolist() for anchor in self.anchors],
            "attracted": self.attracted.tolist(),
            "thresholds": self.thresholds.tolist(),
            "before": {group: values.tolist() for group, values in self.before.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.part, self.pulled, self.weights = state["part"], tuple(state["pulled"]), []
        for anchor, values in zip(self.anchors, state["anchors"], strict=True):
            anchor.copy_(torch.tensor(values, dtype=anchor.dtype))
        self.attracted = torch.tensor(state["attracted"], device=self.units.device)
        self.thresholds = torch.tensor(state["thresholds"], device=self.units.device)
        self.before = {group: np.array(values) for group, values in state["before"].items()}
