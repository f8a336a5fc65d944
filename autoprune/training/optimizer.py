"""The optimiser of a training and its learning rate, as a recipe's `training` says."""

from __future__ import annotations

import math

import torch
from torch import nn

from autoprune.recipe import Training


def build_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """SGD; Nesterov needs momentum."""
    return torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
        fused=True,
    )


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`: linear over the warm-up, then the schedule, down to 0 at `steps`."""
    warmup = round(training.warmup * steps)
    if step < warmup:
        return training.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return training.lr * factor[training.schedule]
