"""What a pruning method is: a frozen record of hyper-parameters plus the moments of a trial that it changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.graph import ChannelGraph, Slot
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.surgery.tensors import named_tensors
from autoprune.recipe import Allocation, Target, Training
from autoprune.schema import to_plain
from autoprune.training.protocols import Batch, Regulariser

Scores = dict[str, NDArray[np.float64]]

Note = float | int | bool | str

#: Runs a model on one batch.
ForwardPass = Callable[[nn.Module], Any]


@dataclass(frozen=True, eq=False)
class Context:
    """What a method may look at when it scores, selects or rebuilds.

    Fields:
        model: the model before the cut, in eval mode; a method must leave it as it was.
        graph: its channel graph.
        batches: `batches(images)` yields batches of the training split, as they are, on the model's device, until
            `images` images have been seen; what is in them is the task's affair.
        loss: (model, batch) -> scalar, the task's own mean loss.
        predict: (model, batch) -> outputs of one forward pass.
        seed: of the recipe.
        regulariser: of the sparsify stage that has just ended, with what it found out; None without such a stage.
        find_scores: what another method scores here, if somebody keeps that; see `scores_by`.
    """

    model: nn.Module
    graph: ChannelGraph
    batches: Callable[[int], Iterator[Batch]]
    loss: Callable[[nn.Module, Batch], Tensor]
    predict: Callable[[nn.Module, Batch], Any]
    seed: int
    regulariser: Regulariser | None = None
    find_scores: Callable[[Method], Scores] | None = None

    def scores_by(self, method: Method) -> Scores:
        """What another method scores here, for methods that build on others; in a study it is computed once."""
        return method.score(self) if self.find_scores is None else self.find_scores(method)

    def passes(self, images: int) -> Iterator[ForwardPass]:
        """One function per batch of `batches(images)`; each runs a model on its batch."""
        for batch in self.batches(images):
            yield partial(self._run_on, batch)

    def _run_on(self, batch: Batch, model: nn.Module) -> Any:
        return self.predict(model, batch)


@dataclass(frozen=True, eq=False)
class Stage:
    """A sparsify stage that is about to begin.

    Fields:
        target: what the model may cost after the cut that follows, relative to `Context.graph`.
        allocation: how widths are allocated at that cut.
        training: the stage's, from `Method.stage_training`.
        steps: optimiser steps of the stage, at least 1.
        round: 0 before the first cut, 1 before the second, ...
        weight_decay: the recipe's, whatever `training` has.
    """

    target: Target
    allocation: Allocation
    training: Training
    steps: int
    round: int = 0
    weight_decay: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data by which stored stages are found again: the allocation is called `how` there."""
        plain: dict[str, Any] = to_plain(self)
        return {"how" if name == "allocation" else name: value for name, value in plain.items()}


@dataclass(frozen=True)
class Selection:
    """What a method has selected.

    Fields:
        keep: which units stay.
        notes: what else was found out, beside the cost and accuracy of the cut; becomes `Outcome.notes`.
    """

    keep: Keep
    notes: Mapping[str, Note] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods. A subclass adds hyper-parameters as fields and implements `score`.

    Fields carry their range as metadata (`schema.within`, `schema.choices`), which checks a recipe and documents the
    method's search space.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]

    #: True for the control: nothing is pruned, whatever the target says.
    is_dense: ClassVar[bool] = False

    #: True if `rebuild` solves for the weights that stay: the cut model then computes something else than the masked.
    reconstructs: ClassVar[bool] = False

    #: Optimiser steps of a trial, stage and fine-tuning together, below which a search does not draw the method.
    least_steps: ClassVar[int] = 1

    #: False if the sparsify stage is the same for all targets and allocations: then the stage does not hold them.
    stage_aims: ClassVar[bool] = True

    @property
    def judged_at_cut(self) -> bool:
        """Whether accuracy right after the cut says anything; no if the method starts layers anew."""
        return True

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """The share of the recipe's training images spent in the sparsify stage before each cut; 0 = cut at once."""
        return (0.0,)

    def prepare(self, model: nn.Module) -> nn.Module:
        """A model that computes the same, with the layers decomposed whose rank the method prunes; `model` stays as is.

        The trial traces the model that is returned. Layers whose rank does not pay in the end become single again.
        """
        return model

    def groups(self, context: Context) -> tuple[str, ...]:
        """Ids of the groups that it scores, and so may prune, in the model that `prepare` gives; default: all prunable.

        They follow from the model, the method's choices and which of its numbers are 0, as a search asks once for all
        recipes that agree in these, to know which targets are in reach.
        """
        return tuple(group.id for group in context.graph.prunable)

    def left_after(self, ratio: float, cut: int) -> float:
        """The ratio of the dense cost that is left after cut number `cut` (from 1); `ratio` after the last."""
        return ratio

    def stage_training(self, training: Training) -> Training:
        """How a sparsify stage trains; default: as the recipe says, without moving average and distillation."""
        return replace(training, ema=0.0, distill=0.0)

    def sparsify(self, context: Context, stage: Stage) -> Regulariser | None:
        """The regulariser on `context.model` during the sparsify stage; the model is on the device it trains on."""
        return None

    @abstractmethod
    def score(self, context: Context) -> Scores:
        """One score per unit for every group the method prunes; higher = keep."""

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        """Which units stay; default: allocate the scores to the target."""
        return Selection(allocate(context.graph, scores, target, allocation))

    def rebuild(self, context: Context, keep: Keep) -> nn.Module:
        """The smaller model; default: cut, with the constants of pruned channels folded."""
        return prune(context.model, context.graph, keep)


def sum_over_slots(
    model: nn.Module, graph: ChannelGraph, roles: tuple[str, ...], value: Callable[[Tensor], Tensor]
) -> Scores:
    """Per unit, the sum of `value` over the entries it owns in slots of these roles.

    `value` maps a tensor of shape (entries along the slot, rest) to one number per entry, shape (entries,).
    """
    totals = np.zeros(graph.unit_count)
    tensors = dict(named_tensors(model))
    for slot in graph.slots:
        if slot.role in roles:
            entries = value(rows(tensors[slot.tensor], slot)).double().cpu().numpy()
            np.add.at(totals, slot.units[slot.owned], entries[slot.owned])
    return per_group(graph, totals)


def rows(tensor: Tensor, slot: Slot) -> Tensor:
    """The tensor as a matrix (entries along the slot, everything else), detached, float32."""
    return tensor.detach().movedim(slot.dim, 0).reshape(tensor.shape[slot.dim], -1).float()


def per_group(graph: ChannelGraph, units: NDArray[np.float64]) -> Scores:
    """Numbers per unit as numbers per prunable group."""
    return {group.id: units[group.units] for group in graph.prunable}
