"""Network Slimming: an L1 penalty drives the scales of batch norms apart; units with small scales go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from autoprune.engine.graph import ChannelGraph
from autoprune.errors import InputError
from autoprune.methods.base.method import Context, Method, Scores, Stage, sum_over_slots
from autoprune.schema import within
from autoprune.training.protocols import Regulariser


@dataclass(frozen=True, kw_only=True)
class BNScale(Method):
    """Score by |scale| of the normalisation layers, after training with an L1 penalty on those scales.

    Fields:
        penalty: weight of the L1 term in the loss (lambda of the paper, which uses 1e-5 to 1e-4 from scratch; a stage
            as short as a search trial's needs more).
        share: share of the training images spent with the penalty before the cut; 0 scores the scales as they are.
    """

    name: ClassVar[str] = "bn_scale"
    source: ClassVar[str] = "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017"
    summary: ClassVar[str] = "absolute batch-norm scale after training with an L1 penalty on it"
    stage_aims: ClassVar[bool] = False

    penalty: float = field(default=1e-3, metadata=within(0, 1, log=True, search=(1e-5, 1e-2)))
    share: float = field(default=0.3, metadata=within(0, 0.9, search=(0.1, 0.7)))

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """One stage, of `share`."""
        return (self.share,)

    def sparsify(self, context: Context, stage: Stage) -> Regulariser:
        """L1 regulariser on every scale that a prunable unit owns."""
        return ScaleRegulariser(self.penalty, _masks_of_scales(context.model, context.graph))

    def groups(self, context: Context) -> tuple[str, ...]:
        """Those that have a normalisation layer with a scale; see `score`."""
        graph = context.graph
        scaled = np.unique(np.concatenate([slot.units for slot in graph.slots if slot.role == "scale"] or [[-1]]))
        found = tuple(group.id for group in graph.prunable if group.units[0] in scaled)
        if not found:
            raise InputError("method 'bn_scale' needs batch norms with scales on prunable channels", where="method")
        return found

    def score(self, context: Context) -> Scores:
        """s(u) = sum of |scale| over the unit's normalisation layers; groups without one are not pruned.

        Raises:
            InputError: no prunable group has a normalisation layer with a scale.
        """
        scores = sum_over_slots(context.model, context.graph, ("scale",), lambda scale: scale.abs().sum(1))
        return {group: scores[group] for group in self.groups(context)}


class ScaleRegulariser:
    """Adds the subgradient of penalty * |scale| to the gradients of prunable scales.

    Args:
        penalty: weight of the L1 term.
        masks: parameter name -> 1 where a prunable unit owns the entry, else 0, shape of the parameter.
    """

    def __init__(self, penalty: float, masks: dict[str, torch.Tensor]) -> None:
        self.penalty, self.masks = penalty, masks

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Gradient += penalty * sign(scale)."""
        for name, mask in self.masks.items():
            scale = model.get_parameter(name)
            if scale.grad is not None:
                scale.grad.addcmul_(scale.detach().sign(), mask.to(scale.device), value=self.penalty)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Nothing: the optimizer's step has used the gradient."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: the penalty has no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def _masks_of_scales(model: nn.Module, graph: ChannelGraph) -> dict[str, torch.Tensor]:
    prunable = graph.per_unit(np.float32(0), ((group.units, 1) for group in graph.prunable))
    parameters = dict(model.named_parameters())
    return {
        slot.tensor: torch.from_numpy(prunable[slot.units])
        for slot in graph.slots
        if slot.role == "scale" and slot.tensor in parameters
    }
