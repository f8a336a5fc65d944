"""What the rules say of operations between two convolutions: reasons that name them."""

from __future__ import annotations

import pytest
import torch
from nets import Between, image
from torch import Tensor

from autoprune.engine.tracing.trace import trace


def write_zeros(x: Tensor, count: int) -> Tensor:
    """Zeros for the first channels: a mask of channels."""
    x[:, :count] = 0
    return x


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (lambda y: y.flip(1), "flip over the channels"),
        (lambda y: y.cumsum(1), "cumsum over the channels"),
        (lambda y: y * y.max(1, keepdim=True).indices, "max over the channels, whose positions are used"),
        (lambda y: y * y.kthvalue(3, 1, keepdim=True).values, "kthvalue over the channels"),
        (lambda y: torch.fft.rfft(y, dim=1).abs()[:, :1] * y, "_fft_r2c over the channels"),
        (lambda y: write_zeros(torch.ones(y.shape[1:], device=y.device).unsqueeze(0), 3) * y, "fixed size at 'mul'"),
        (lambda y: write_zeros(y.clone(), 3), "other channels would be in a slice"),
        (lambda y: write_zeros(torch.ones_like(y), 3) * y, "other channels would be in a slice"),
        (lambda y: y + torch.arange(7.0, device=y.device).view(7, 1, 1), "meets a tensor of fixed size at 'add'"),
        (lambda y: y + torch.ones(7, 1, 1, device=y.device), "the model's code fixes its size"),
        (lambda y: y[:, :3].sum(1, keepdim=True) * y, "fixes an index"),
    ],
)
def test_what_cannot_lose_channels_freezes_them_and_says_so(between, why: str) -> None:
    frozen = {group.id: group.frozen for group in trace(Between(between), image()).groups}

    assert why in str(frozen["a"])
