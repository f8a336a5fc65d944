"""Networks under L0-HQS's regulariser, and steps of it."""

from __future__ import annotations

import math

import torch
from nets import image
from regularisers import cross_entropy, predict
from torch import nn

from autoprune.engine.tracing.trace import trace
from autoprune.methods import Context, Stage
from autoprune.methods.l0_hqs import L0HQS, Splitting
from autoprune.recipe import Allocation, Target, Training

HALF = Target(flops=0.5)


#: Widths at which a single unit is not worth more than the tolerance of a target.
WIDE = {
    "Chain": {"a": 23, "b": 31},
    "Residual": {"stream": 23, "inner": 31},
    "Concat": {"growth": 23},
    "Depthwise": {"width": 31},
    "Grouped": {"offset": 31},
    "Shuffle": {"half": 31},
    "Shared": {"width": 61},
}


def row(width: int = 61, norm: bool = True) -> nn.Sequential:
    """One prunable layer, `width` filters of 3 weights; scales and shifts rise from 1 to 3, in steps of equal ratio."""
    layers = [nn.Conv2d(3, width, 1, bias=not norm), nn.BatchNorm2d(width) if norm else nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(width, 5, 9), nn.Flatten()).eval()
    rise = torch.logspace(0, math.log10(3), width)
    for parameter in (net[1] if norm else net[0]).parameters():
        parameter.data.copy_(rise.view(-1, *[1] * (parameter.dim() - 1)).expand(parameter.shape))
    return net


def case(net: nn.Module, regulariser: Splitting | None = None) -> Context:
    return Context(net, trace(net, image()), lambda images: iter(()), cross_entropy, predict, 0, regulariser)


def press(net: nn.Module, method: L0HQS, steps: int = 400, **changes: object) -> Splitting:
    """The regulariser on a stage that is about to begin."""
    fields = {"target": HALF, "allocation": Allocation(), "training": method.stage_training(Training()), **changes}
    return method.sparsify(case(net), Stage(steps=steps, **fields))  # type: ignore[arg-type]


def idle(net: nn.Module, regulariser: Splitting) -> None:
    """The whole stage, under a loss that is constant."""
    for step in range(regulariser.schedule.steps):
        regulariser.before_step(net, step, regulariser.schedule.steps)
        regulariser.after_step(net, step, regulariser.schedule.steps)
