"""Batch norm over a batch that lies in several processes: every one normalises by the moments of the whole batch.

`torch.nn.SyncBatchNorm` does the same on GPUs alone, and in layers that are exactly torch's own. Here the operation is
replaced, whatever layer calls it and on any device, so that a model trained by several processes is the one that a
single process would train.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoprune.training.processes import Processes

_NAMES = tuple(inspect.signature(F.batch_norm).parameters)


def shared_norms(processes: Processes) -> contextlib.AbstractContextManager[Any]:
    """Within it all batch norms that use the statistics of their batch use those of the batch of all processes."""
    return contextlib.nullcontext() if processes.alone else _SharedNorms(processes)


class _SharedNorms(TorchFunctionMode):
    """Takes the place of `torch.nn.functional.batch_norm` where it is called for training."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            given = {**dict(zip(_NAMES, args, strict=False)), **(kwargs or {})}
            if given.get("training", False):
                return _normalised(processes=self.processes, **given)
        return func(*args, **(kwargs or {}))


def _normalised(
    processes: Processes,
    input: Tensor,  # noqa: A002 - as torch calls it
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """What `batch_norm` gives for the batch of all processes, for this process's part of it, (N, C, ...)."""
    assert training
    channels = input.shape[1]
    scale = input.new_ones(channels, dtype=torch.float32) if weight is None else weight
    shift = torch.zeros_like(scale) if bias is None else bias
    y, mean, var, count = _SharedNorm.apply(input, scale, shift, eps, processes)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    return y


class _SharedNorm(torch.autograd.Function):
    """Batch norm by the moments of the whole batch; returns the output, mean and biased variance (C,), and values per
    channel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _moments(x, processes)
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.processes = eps, processes
        ctx.mark_non_differentiable(mean, var, count)
        ctx.set_materialize_grads(False)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: None) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """dx = weight / std * (grad - mean(grad) - xhat mean(grad xhat)) (Ioffe and Szegedy 2015, section 3).

        The means are over all processes. The gradients of weight and bias are this process's share: the training loop
        adds them up with all others.
        """
        x, weight, mean, var, count = ctx.saved_tensors
        per_channel = [1, -1, *[1] * (x.dim() - 2)]
        rstd = (var + ctx.eps).rsqrt()
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack([by_bias, by_weight])
        ctx.processes.add_up(sums)
        of_grad, of_product = sums / count
        slope = weight * rstd
        by_x = -slope * rstd * of_product
        constant = -slope * of_grad - by_x * mean
        scaled, shifts, factors = (values.view(per_channel) for values in (slope, constant, by_x))
        dx = torch.addcmul(shifts, x.float(), factors).addcmul_(grad.float(), scaled)
        return dx.to(x.dtype), by_weight, by_bias, None, None


def _moments(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance per channel, float32, and the number of values per channel, over all processes.

    In float64, as the variance is a difference of sums: per channel these are few.
    """
    var, mean = (values.double() for values in torch.var_mean(x.float(), [0, *range(2, x.dim())], correction=0))
    count = torch.full_like(mean, x.numel() // x.shape[1])
    sums = torch.stack([count, count * mean, count * (var + mean.square())])
    processes.add_up(sums)
    count, mean, squares = sums[0], sums[1] / sums[0], sums[2] / sums[0]
    return mean.float(), (squares - mean.square()).clamp_min(0).float(), count[:1].float()
