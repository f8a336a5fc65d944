"""What the rules say of operations between two convolutions: reasons that name them."""

from __future__ import annotations

import pytest
import torch
from nets import Between, image

from autoprune.engine.tracing.trace import trace


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (lambda y: y.flip(1), "flip over the channels"),
        (lambda y: y.cumsum(1), "cumsum over the channels"),
        (lambda y: y * y.max(1, keepdim=True).values, "max over the channels"),
        (lambda y: y * y.kthvalue(3, 1, keepdim=True).values, "no rule for operation 'kthvalue'"),
        (lambda y: y + torch.arange(7.0, device=y.device).view(7, 1, 1), "meets a tensor of fixed size at 'add'"),
        (lambda y: y + torch.ones(7, 1, 1, device=y.device), "the model's code fixes its size"),
        (lambda y: y[:, :3].sum(1, keepdim=True) * y, "fixes an index"),
    ],
)
def test_what_cannot_lose_channels_freezes_them_and_says_so(between, why: str) -> None:
    frozen = {group.id: group.frozen for group in trace(Between(between), image()).groups}

    assert why in str(frozen["a"])
