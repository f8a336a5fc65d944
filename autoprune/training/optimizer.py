"""The optimiser of a training and its learning rate, as a recipe's `training` says."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from autoprune.recipe import Training


def build_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimiser that `training.optimizer` names; Nesterov needs momentum."""
    groups = _parameter_groups(model, training)
    common: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay, "fused": True}
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=training.momentum, nesterov=training.momentum > 0, **common)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[training.optimizer]
    return kind(groups, betas=(training.momentum, 0.999), **common)


def _parameter_groups(model: nn.Module, training: Training) -> list[dict[str, Any]]:
    """The parameters that learn; those that do not decay in a group of their own, if there are any."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay_all = training.optimizer != "adamw" if training.decay_all is None else training.decay_all
    free = [] if decay_all else [parameter for parameter in learning if parameter.dim() <= 1]
    known = set(map(id, free))
    held = [parameter for parameter in learning if id(parameter) not in known]
    return [{"params": held}] + ([{"params": free, "weight_decay": 0.0}] if free else [])


def plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimiser as any device goes on from it: what it was told for graphs is left out."""
    state = optimizer.state_dict()
    plain = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    for group in plain:
        if "capturable" in group:
            group["capturable"] = False
    return {**state, "param_groups": plain}


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`: linear over the warm-up, then the schedule, down to 0 at `steps`."""
    warmup = round(training.warmup * steps)
    if step < warmup:
        return training.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return training.lr * factor[training.schedule]
