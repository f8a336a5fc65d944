"""Random weights under which a test of a pruned network means something: nothing cancels, vanishes or explodes.

Networks as their libraries initialise them hide mistakes: the last scale of a residual branch starts at 0 (ResNets,
NFNets) or at 1e-6 (ConvNeXt), so what the branch computes does not show; batch norm starts with mean 0 and variance 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from autoprune.analysis.benchmarks.zoo_checks import copied

#: Endings of the names of vectors that are added, not multiplied with.
SHIFTS = ("bias", "beta", "token", "shift")


def randomise(model: nn.Module, inputs: tuple[Any, ...], seed: int = 0) -> nn.Module:
    """Give the model random weights and statistics in place; it ends in eval mode.

    Matrices and filters keep the variance (gain sqrt(2), as half of it goes in a ReLU); scales lie in [0.5, 1.5];
    shifts are small. Statistics of batch norms are those of one forward pass, disturbed: mean by a third of the
    standard deviation, variance by a factor in [0.5, 1.5]; purely random ones let the activations of a net of
    hundreds of layers drift away by orders of magnitude.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                _fill_parameter(module, name, parameter, generator)
        _set_statistics(model.eval(), inputs, generator)
    return model


def _fill_parameter(module: nn.Module, name: str, parameter: Tensor, generator: torch.Generator) -> None:
    wide = sum(size > 1 for size in parameter.shape)
    matrix = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) or (wide > 1 and name.endswith("weight"))
    if matrix and parameter.dim() > 1:
        parameter.normal_(0, (2 / _fan_in(module, parameter)) ** 0.5, generator=generator)
    elif wide > 1 or name.endswith(SHIFTS):
        parameter.normal_(0, 0.2, generator=generator)
    else:
        parameter.uniform_(0.5, 1.5, generator=generator)


def _fan_in(module: nn.Module, weight: Tensor) -> int:
    transposed = isinstance(module, nn.modules.conv._ConvNd) and module.transposed
    return (weight.shape[0] if transposed else weight.shape[1]) * weight[0, 0].numel()


def _set_statistics(model: nn.Module, inputs: tuple[Any, ...], generator: torch.Generator) -> None:
    def measure(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        columns = args[0].transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(columns, 1, correction=0)
        noise = torch.randn(mean.shape, generator=generator) / 3
        module.running_mean.copy_(mean + noise * variance.sqrt())
        module.running_var.copy_(variance * (torch.rand(mean.shape, generator=generator) + 0.5) + 1e-3)

    normed = [m for m in model.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]
    handles = [module.register_forward_pre_hook(measure) for module in normed]
    try:
        model(*copied(inputs))
    finally:
        for handle in handles:
            handle.remove()
