"""Batch norm for channels-last tensors of few or odd channels on the CPU, several times as fast as torch's kernel."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Torch's channels-last kernel walks over the C channels of one pixel at a time and does the remainder of C modulo the
# vector length element by element; its threads also write sums side by side in one cache line. Seen as
# (pixels / k, k C), k pixels to a row, the same memory has rows long enough. Forward and backward, (128, C, 32, 32), 1
# thread of an AMD EPYC (AVX-512), torch 2.15, times as fast as torch's: bf16 C = 5: 2.3, 7: 2.5, 13: 2.0, 29: 1.4;
# fp32 3.1, 2.7, 1.5, 0.9; but C = 16: 0.8, 48: 0.6, 60: 0.5 to 0.7.
_LANES, _ROW = 32, 256


class _WideBatchNorm2d(nn.BatchNorm2d):
    """What a BatchNorm2d is while `wide_norms` is on; computes the same."""

    def forward(self, x: Tensor) -> Tensor:
        k = _pixels_per_row(x) if self.training and self.affine and self.momentum is not None else 0
        if k == 0 or not self.track_running_stats or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        y, mean, var = _WideNorm.apply(x, self.weight, self.bias, self.eps, k)
        with torch.no_grad():
            count = x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        return y


@contextlib.contextmanager
def wide_norms(model: nn.Module) -> Iterator[None]:
    """Within it the model's BatchNorm2d layers that gain from it normalise in wide rows while they train."""
    norms = [m for m in model.modules() if type(m) is nn.BatchNorm2d and _gains_from_wide_rows(m.num_features)]
    for norm in norms:
        norm.__class__ = _WideBatchNorm2d
    try:
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d


def _gains_from_wide_rows(channels: int) -> bool:
    return channels < _LANES and channels % 8 != 0


def _pixels_per_row(x: Tensor) -> int:
    """k, such that a row of k pixels is whole vectors long; 0 if the pixels of the batch do not come out even."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    k = _LANES // math.gcd(channels, _LANES)
    while channels * k < _ROW and pixels % (2 * k) == 0:
        k *= 2
    return k if pixels % k == 0 and pixels > k else 0


def _as_wide_rows(x: Tensor, k: int) -> Tensor:
    """(N, C, H, W), channels-last -> (N H W / k, k C, 1, 1), a view."""
    return x.permute(0, 2, 3, 1).reshape(-1, k * x.shape[1], 1, 1)


def _tiled(values: Tensor, k: int) -> Tensor:
    """(C,) -> (k C,). `Tensor.repeat` does the same in five operations, fifteen times a layer and step."""
    return values.expand(k, -1).reshape(-1).contiguous()  # one channel would stay a view of one number


def _scale_rows(
    x: Tensor, out: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, k: int
) -> Tensor:
    """`out` (N, C, H, W) <- (x - mean) / sqrt(var + eps) * weight + bias, all per channel."""
    values = [_tiled(value, k) for value in (weight, bias, mean, var)]
    unused = torch.empty(0), torch.empty(0)
    torch.native_batch_norm(_as_wide_rows(x, k), *values, False, 0.0, eps, out=(_as_wide_rows(out, k), *unused))
    return out


def _batch_moments(x: Tensor, eps: float, k: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, float32: those of the k C columns, combined."""
    channels = x.shape[1]
    # float32 weights make the statistics float32 where x is bfloat16
    ones, zeros = torch.ones(k * channels), torch.zeros(k * channels)
    _, means, inverse_stds = torch.native_batch_norm(_as_wide_rows(x, k), ones, zeros, None, None, True, 0.0, eps)
    means, variances = means.view(k, channels), inverse_stds.view(k, channels).pow_(-2).sub_(eps)
    mean = means.mean(0)
    return mean, variances.mean(0).add_((means - mean).square_().mean(0)).clamp_min_(0)


class _WideNorm(torch.autograd.Function):
    """Batch norm with the statistics of the batch; returns the output, the mean and the biased variance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, k: int) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = _batch_moments(x, eps, k)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.k = eps, k
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return _scale_rows(x, torch.empty_like(x), weight, bias, mean, var, eps, k), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: None) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """dx = weight / std * (grad - mean(grad) - xhat mean(grad xhat)) (Ioffe and Szegedy 2015, section 3)."""
        (x, weight, mean, var), eps, k = ctx.saved_tensors, ctx.eps, ctx.k
        grad = grad.contiguous(memory_format=torch.channels_last)
        count, channels = x.numel() // x.shape[1], x.shape[1]
        tiled = [_tiled(value, k) for value in (weight, mean, var)]
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            _as_wide_rows(grad, k), _as_wide_rows(x, k), *tiled, None, None, False, eps, [False, True, True]
        )
        by_weight, by_bias = by_weight.view(k, channels).sum(0), by_bias.view(k, channels).sum(0)
        slope, zeros = weight * (var + eps).rsqrt() / count, torch.zeros_like(mean)
        dx = _scale_rows(grad, torch.empty_like(x), weight, -slope * by_bias, zeros, var, eps, k)
        dx += _scale_rows(x, torch.empty_like(x), -slope * by_weight, zeros, mean, var, eps, k)
        return dx, by_weight, by_bias, None, None
