"""First-order Taylor importance: how much the loss changes, to first order, when a unit's output is switched off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph, Slot
from autoprune.methods.base.method import Context, Method, Scores, per_group, rows
from autoprune.schema import within


@dataclass(frozen=True, kw_only=True)
class Taylor(Method):
    """Squared first-order change of the loss per batch, averaged over batches, model in eval mode.

    A gate behind a normalisation has the derivative scale * d/dscale + shift * d/dshift; behind a bare filter it has
    sum(w * d/dw) over weights and bias. A unit that couples several filters switches all their gates off at once, so
    the derivatives are added before they are squared.

    Fields:
        images: training images the gradients are averaged over.
    """

    name: ClassVar[str] = "taylor"
    source: ClassVar[str] = (
        "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equations 8, 9"
    )
    summary: ClassVar[str] = "squared first-order change of the loss when a unit is switched off"

    images: int = field(default=1024, metadata=within(1, 10**9, log=True, search=(128, 8192)))

    def score(self, context: Context) -> Scores:
        """s(u) = mean over batches of (sum over the unit's gates of the gate's derivative)^2."""
        slots = _gate_slots(context.graph)
        total, batches = np.zeros(context.graph.unit_count), 0
        for batch in context.batches(self.images):
            context.model.zero_grad(set_to_none=True)
            context.loss(context.model, batch).backward()
            total += loss_change_without(context.model, context.graph, slots) ** 2
            batches += 1
        context.model.zero_grad(set_to_none=True)
        return per_group(context.graph, total / batches)


def _gate_slots(graph: ChannelGraph) -> list[Slot]:
    """Where each filter's gate sits: on the normalisation behind it if there is one, else on the filter itself."""
    normed = {u for slot in graph.slots if slot.role == "scale" for u in slot.units.tolist()}
    norms = [slot for slot in graph.slots if slot.role in ("scale", "shift")]
    bare = [
        slot for slot in graph.slots if slot.role in ("out", "bias") and not normed & set(slot.units.tolist()) - {-1}
    ]
    return norms + bare


def loss_change_without(model: nn.Module, graph: ChannelGraph, slots: list[Slot]) -> np.ndarray:
    """First-order change of the loss per unit when these slots become 0, by the gradients at hand, shape (units,)."""
    change = np.zeros(graph.unit_count)
    parameters = dict(model.named_parameters())
    for slot in slots:
        weight = parameters.get(slot.tensor)
        if weight is not None and weight.grad is not None:
            derivative = _derivative_by_entry(weight, weight.grad, slot)
            np.add.at(change, slot.units[slot.owned], derivative[slot.owned])
    return change


def _derivative_by_entry(weight: Tensor, gradient: Tensor, slot: Slot) -> np.ndarray:
    product = (rows(weight, slot) * rows(gradient, slot)).sum(1)
    return product.double().cpu().numpy()
