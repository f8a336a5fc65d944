"""What a pruning method is: a frozen record of hyper-parameters plus the moments of a trial that it changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.allocate import allocate
from autoprune.graph import ChannelGraph, Slot
from autoprune.keep import Keep
from autoprune.recipe import Allocation, Target
from autoprune.surgery import named_tensors, prune
from autoprune.train import Pressure

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Context:
    """What a method may look at when it scores or rebuilds.

    Fields:
        model: the model before the cut, in eval mode; a method must leave it as it was.
        graph: its channel graph.
        batches: `batches(images)` yields (inputs, labels) from the training split, normalised, on the model's device,
            until `images` images have been seen.
        loss: (outputs, labels) -> scalar, the task's own.
        seed: of the recipe.
    """

    model: nn.Module
    graph: ChannelGraph
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    loss: Callable[[Tensor, Tensor], Tensor]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods. A subclass adds hyper-parameters as fields and implements `score`.

    Fields carry their range as metadata (`reading.within`, `reading.choices`), which checks a recipe and documents the
    method's search space.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]

    @property
    def sparsify_share(self) -> float:
        """The share of the recipe's training images that goes to the sparsify stage; 0 = no such stage."""
        return 0.0

    def sparsify(self, model: nn.Module, graph: ChannelGraph) -> Pressure | None:
        """The pressure on the model during the sparsify stage."""
        return None

    @abstractmethod
    def score(self, context: Context) -> Scores:
        """One score per unit for every group the method prunes; higher = keep."""

    def select(self, context: Context, scores: Scores, target: Target, how: Allocation) -> Keep:
        """Which units stay; default: allocate the scores to the target."""
        return allocate(context.graph, scores, target, how)

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
            owned = slot.units >= 0
            np.add.at(totals, slot.units[owned], entries[owned])
    return per_group(graph, totals)


def rows(tensor: Tensor, slot: Slot) -> Tensor:
    """The tensor as a matrix (entries along the slot, everything else), detached, float32."""
    return tensor.detach().movedim(slot.dim, 0).reshape(tensor.shape[slot.dim], -1).float()


def per_group(graph: ChannelGraph, units: NDArray[np.float64]) -> Scores:
    """Numbers per unit as numbers per prunable group."""
    return {group.id: units[group.units] for group in graph.prunable}
