"""Group Fisher pruning: units go one by one while training goes on, always the one whose mask matters least."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import TOLERANCE, allocate_by
from autoprune.engine.allocation.strategies import (
    Strategy,
    WidthLimits,
    by_plain_scores,
    limits_of,
    strategy_of,
    without_scores,
)
from autoprune.engine.allocation.widths import allowed_widths
from autoprune.engine.cost import costs_of_counts
from autoprune.engine.graph import ChannelGraph, Floats, Group, Ints
from autoprune.engine.keep import Keep
from autoprune.errors import InputError
from autoprune.methods.base.mask_gradients import MaskGradients, maskable_groups
from autoprune.methods.base.method import Context, Note, Scores, Stage
from autoprune.methods.base.staged import ConstantRate, Decided
from autoprune.methods.base.units import Units
from autoprune.recipe import Allocation, Target, Training
from autoprune.schema import choices, within
from autoprune.training.processes import Processes

#: Columns of `costs_of_counts`, by what a score is divided by; `memory` is the paper's, maps that are made.
_COLUMNS = {"flops": 0, "memory": 2}
_COSTS = ("flops", "params", "activations")


@dataclass(frozen=True, kw_only=True)
class GroupFisher(ConstantRate, Decided):
    """At even distances the unit of least s(u) / what it costs is switched off; the others train on.

    A unit has one mask on the inputs of all layers that read it, a depthwise or grouped layer among them. With all
    masks at 1, s(u) = sum over images n of (sum over readers and positions of dL_n/dm)^2, gathered since the last
    removal in the passes that train. The cost of a unit is the difference that it makes at the widths of that moment,
    so `memory` counts the maps of all layers that make it.

    The paper removes a unit every 25 steps, as long as that takes. Here the stage has an end: the distance follows from
    the number of units that would have to go if every group lost the same share. Where there are fewer steps than that,
    several go at a time (the notes say how many), each at the widths that the one before has left; units that the
    target still asks for when the stage ends go then, by the last scores. With `round_to`, units go in blocks and are
    compared by their sums. An allocation other than `global` sets the widths at which groups stop.

    A group has no such mask, and is left whole, if something reads it that is not a convolution or linear layer called
    as a module, such as the queries of attention. A normalisation over several channels still sees the masked ones
    during the stage.

    Fields:
        share: share of the training images spent so.
        spread: share of those steps over which removals are spread.
        at_once: units that go at a time at least; more of them are compared by more images. The paper has 1.
        normaliser: what a score is divided by.
        images: training images for the score without a stage.
        lr: learning rate of the stage, constant.
    """

    name: ClassVar[str] = "group_fisher"
    source: ClassVar[str] = (
        "Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, algorithm 1; lengths scaled"
    )
    summary: ClassVar[str] = "one mask per coupled channel; the one of least squared gradient per memory goes, again"

    spread: float = field(default=0.8, metadata=within(0.05, 1, search=(0.4, 1)))
    at_once: int = field(default=1, metadata=within(1, 1000, log=True, search=(1, 8)))
    normaliser: str = field(default="memory", metadata=choices("memory", "flops", "none"))
    images: int = field(default=1024, metadata=within(1, 10**9, log=True, search=(128, 8192)))
    lr: float = field(default=0.005, metadata=within(1e-5, 1, log=True, search=(5e-4, 0.05)))

    def stage_training(self, training: Training) -> Training:
        """Constant learning rate `lr`, each step in one pass: a mask's gradient is of all images of a step.

        Raises:
            InputError: the recipe divides a step among passes.
        """
        if training.accumulate > 1:
            what = f"{self.name} hears a step's batch in one pass"
            raise InputError(what, where="training.accumulate", allowed="1 with this method")
        return super().stage_training(training)

    def sparsify(self, context: Context, stage: Stage) -> Removal:
        """The removals; how far apart they are is decided now."""
        groups, readers = maskable_groups(context, self.scope)
        units = Units.of(context.model, context.graph, groups, roles=("in", "out", "bias"))
        choice = Choice.of(context.graph, groups, stage.target, stage.allocation, self.normaliser)
        need = choice.estimated_removals()
        budget = max(1, math.floor(self.spread * stage.steps))
        at_once = max(self.at_once, math.ceil(need / budget), choice.largest_block)
        every = max(1, budget // max(1, math.ceil(need / at_once)))
        return Removal(units, MaskGradients(readers, context.graph.unit_count), choice, every, at_once)

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those in scope that can be masked where they are read."""
        return tuple(group.id for group in maskable_groups(context, self.scope)[0])

    def score(self, context: Context) -> Scores:
        """s(u) / what the unit costs, mean over `images` images, all masks at 1."""
        groups, readers = maskable_groups(context, self.scope)
        gradients, seen = MaskGradients(readers, context.graph.unit_count), 0
        total: Tensor | float = 0.0
        with gradients.listening(context.model):
            for batch in context.batches(self.images):
                context.model.zero_grad(set_to_none=True)
                context.loss(context.model, batch).backward()
                total = gradients.take().mul_(gradients.images**2) + total
                seen += gradients.images
        context.model.zero_grad(set_to_none=True)
        values = torch.as_tensor(total / seen).double().cpu().numpy()
        worth = cost_per_unit(context.graph, self.normaliser)
        return {group.id: values[group.units] / worth[context.graph.column[group.id]] for group in groups}


# ---- the choice ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Choice:
    """Which units go next.

    Fields:
        groups: the groups that may lose units.
        widths: the widths that each of them may have, ascending.
        target: what the model may cost.
        strategy, limits: of the allocation.
        normaliser: what a score is divided by.
    """

    graph: ChannelGraph
    groups: tuple[Group, ...]
    widths: tuple[Ints, ...]
    target: Target
    strategy: Strategy
    limits: WidthLimits
    normaliser: str

    @classmethod
    def of(
        cls, graph: ChannelGraph, groups: tuple[Group, ...], target: Target, allocation: Allocation, normaliser: str
    ) -> Choice:
        """Under an allocation: its widths and, unless it ranks globally, how far each group may go.

        Raises:
            TargetError: the target is out of reach.
        """
        scored = {group.id: np.zeros(group.size) for group in groups}
        strategy, limits = strategy_of(allocation), limits_of(allocation)
        allowed, lowest = allowed_widths(graph, allocation, scored), dict.fromkeys(scored, 0)
        if strategy == without_scores(strategy):
            lowest |= allocate_by(graph, scored, target, strategy, limits).widths(graph)
        widths = tuple(allowed[group.id][allowed[group.id] >= lowest[group.id]] for group in groups)
        return cls(graph, groups, widths, target, strategy, limits, normaliser)

    @cached_property
    def dense(self) -> Floats:
        """FLOPs, parameters and activations of the dense model."""
        return costs_of_counts(self.graph, self.graph.sizes[None])[0]

    @property
    def largest_block(self) -> int:
        """Units of the largest block."""
        return max((int(np.diff(widths).max(initial=1)) for widths in self.widths), default=1)

    def estimated_removals(self) -> int:
        """How many units would go if every group lost the same share, or as the allocation says if it does."""
        scores = {group.id: np.zeros(group.size) for group in self.groups}
        keep = allocate_by(self.graph, scores, self.target, without_scores(self.strategy), self.limits)
        return int((self.graph.sizes - keep.counts(self.graph)).sum())

    def count_alive(self, alive: NDArray[np.bool_]) -> Ints:
        """Units alive per prunable group."""
        return np.array([alive[group.units].sum() for group in self.graph.prunable], dtype=np.int64)

    def excess(self, counts: Ints) -> Floats:
        """How far the worst limit is overshot by each row of `counts`, as a share of the dense cost; shape (rows,)."""
        costs = costs_of_counts(self.graph, counts)
        ratios = np.divide(costs, self.dense, out=np.ones_like(costs), where=self.dense > 0)
        over = [ratios[:, _COSTS.index(name)] - limit for name, limit in self.target.ratios().items()]
        return np.max(over, axis=0) if over else np.full(len(counts), -np.inf)

    def is_met(self, alive: NDArray[np.bool_]) -> bool:
        """Whether the target is met: nothing is left to go, or nothing fits any more and it is within the tolerance."""
        excess = self.excess(self.count_alive(alive)[None])[0]
        return bool(excess <= 0 or (excess <= TOLERANCE and self.next_block(np.zeros(len(alive)), alive) is None))

    def next_block(self, scores: Floats, alive: NDArray[np.bool_]) -> Ints | None:
        """The block of least score / worth that does not leave the target behind by more than the tolerance.

        None if there is no such block. Ties: the group that comes first.
        """
        counts = self.count_alive(alive)
        columns, blocks = [], []
        for group, widths in zip(self.groups, self.widths, strict=True):
            column = self.graph.column[group.id]
            place = int(np.searchsorted(widths, counts[column]))
            if place > 0:
                left = group.units[alive[group.units]]
                columns.append(column)
                blocks.append(left[np.argsort(scores[left], kind="stable")][: counts[column] - widths[place - 1]])
        if not blocks:
            return None
        after = np.repeat(counts[None], len(blocks), axis=0)
        after[np.arange(len(blocks)), columns] -= [len(block) for block in blocks]
        saved = _costs_saved(self.graph, counts, after, self.normaliser)
        values = np.array([scores[block].sum() for block in blocks]) / saved
        values[self.excess(after) < -TOLERANCE] = np.inf
        best = int(np.argmin(values))
        return blocks[best] if values[best] < np.inf else None

    def search_widths(self, scores: Floats, gone: list[int]) -> Keep:
        """Widths around those reached that meet the target; what is `gone` goes first, but some may come back.

        Raises:
            TargetError: there are none.
        """
        values = np.zeros(self.graph.unit_count)
        for group, worth in zip(self.graph.prunable, cost_per_unit(self.graph, self.normaliser), strict=True):
            values[group.units] = scores[group.units] / worth
        values[gone] = np.arange(len(gone)) - len(gone)
        ranked = {group.id: values[group.units] for group in self.groups}
        return allocate_by(self.graph, ranked, self.target, by_plain_scores(self.strategy), self.limits)


class Removal:
    """The regulariser: gathers squared mask gradients, switches units off and holds them so.

    A unit is switched off by zeros in all weights that read or make it. To the readers that is a mask of 0 on their
    inputs, but nothing is multiplied in the passes, and the model computes what it will once it is cut.

    Args:
        units: with all that becomes zero.
        gradients: observes the passes.
        choice: says which units go.
        every: steps between two removals.
        at_once: units that go then.
    """

    def __init__(self, units: Units, gradients: MaskGradients, choice: Choice, every: int, at_once: int) -> None:
        self.units, self.gradients, self.choice, self.every, self.at_once = units, gradients, choice, every, at_once
        self.sums, self.at_end, self.put_back = units.full(0), 0, 0
        self._set_gone([])

    def listening(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within it the passes of the model are observed, until the target is met."""
        return self.gradients.listening(model)

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Add up the squared mask gradients; switch units off if it is time, all that is left in the last step."""
        if not self.gradients.on:
            return
        self.sums += self.gradients.take()
        due, last = (step + 1) % self.every == 0, step == steps - 1
        if due or last:
            scores = _sum_over_processes(self.sums, self.gradients.images).double().cpu().numpy()
            self.sums.zero_()
            self._remove_units(scores, self.at_once if due else 0)
            if last:
                self._meet_target(scores)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """What is switched off stays so: the optimiser's momentum has moved it."""
        if self.gone:
            self.units.scale(model, self.factor)

    def _remove_units(self, scores: Floats, most: int) -> None:
        alive, gone = self.alive, self.gone
        before = len(gone)
        while len(gone) - before < most and not self.choice.is_met(alive):
            block = self.choice.next_block(scores, alive)
            if block is None:
                break
            gone.extend(block.tolist())
            alive[block] = False
        self._set_gone(gone)

    def _meet_target(self, scores: Floats) -> None:
        """Meet the target now; where single units are worth more than the tolerance, other widths are searched."""
        before = len(self.gone)
        self._remove_units(scores, self.units.count)
        if self.choice.excess(self.choice.count_alive(self.alive)[None])[0] > TOLERANCE:
            kept = self.choice.search_widths(scores, self.gone)
            outside = torch.nonzero(self.units.outside(kept)).flatten().tolist()
            self.put_back = len(set(self.gone[:before]) - set(outside))
            self._set_gone(sorted(outside))
        self.at_end = len(self.gone) - (before - self.put_back)

    def _set_gone(self, gone: list[int]) -> None:
        """Take note of the units that are gone, in that order."""
        self.gone, self.alive = gone, np.ones(self.units.count, dtype=bool)
        self.alive[gone] = False
        self.factor = self.units.full(1)
        self.factor[gone] = 0
        self.gradients.on = not self.choice.is_met(self.alive)

    def keep(self) -> Keep:
        """What is not switched off."""
        return self.units.without(self.factor == 0)

    def notes(self, model: nn.Module) -> dict[str, Note]:
        """Units per event, steps between events, units removed so, and units removed when the stage ended."""
        return {
            "units_per_event": self.at_once,
            "steps_per_event": self.every,
            "removed": len(self.gone) - self.at_end,
            "removed_at_end": self.at_end,
            "put_back": self.put_back,
        }

    def state_dict(self) -> dict[str, Any]:
        """What was gathered since the last removal, the units that are gone, and the counters."""
        counters = {name: getattr(self, name) for name in ("at_end", "put_back")}
        return {"sums": self.sums.tolist(), "gone": list(self.gone), **counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.sums = torch.tensor(state["sums"], dtype=self.sums.dtype, device=self.sums.device)
        self.at_end, self.put_back = state["at_end"], state["put_back"]
        self._set_gone(list(state["gone"]))


def _sum_over_processes(sums: Tensor, images: int) -> Tensor:
    """What `MaskGradients.take` gave in all processes, times the square of their images, which made the mean loss.

    Each process sees its own images, and all must decide alike.
    """
    total = torch.cat([sums, sums.new_tensor([images])])
    Processes.current().add_up(total)
    return total[:-1] * total[-1] ** 2


def cost_per_unit(graph: ChannelGraph, normaliser: str) -> Floats:
    """What one unit of each prunable group costs in the dense model, shape (prunable groups,)."""
    after = graph.sizes - np.eye(len(graph.sizes), dtype=np.int64)
    return _costs_saved(graph, graph.sizes, after, normaliser)


def _costs_saved(graph: ChannelGraph, counts: Ints, after: Ints, normaliser: str) -> Floats:
    """What each row of `after` saves, at least 1: some units make no map, as those of an embedding."""
    if normaliser == "none":
        return np.ones(len(after))
    column = _COLUMNS[normaliser]
    now, then = costs_of_counts(graph, counts[None])[0, column], costs_of_counts(graph, after)[:, column]
    return np.maximum(now - then, 1.0)
