"""Operations in which channels act on each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cuts import frozen, lawful_graph, prunable
from nets import Between, image, randomised
from torch import Tensor
from torch.nn import functional as F


def channel_attention(x: Tensor) -> Tensor:
    """Of DANet: energies are held against the largest of each channel, which is spread out."""
    flat = x.flatten(2)
    energy = flat @ flat.transpose(1, 2)
    energy = energy.max(-1, keepdim=True)[0].expand_as(energy) - energy
    return (energy.softmax(-1) @ flat).view_as(x) + x


def repeated_attention(x: Tensor) -> Tensor:
    """The same with copies side by side."""
    flat = x.flatten(2)
    energy = flat @ flat.transpose(1, 2)
    energy = energy - energy.amax(-1, keepdim=True).repeat(1, 1, energy.shape[-1])
    return (energy.softmax(-1) @ flat).view_as(x) + x


def variances(x: Tensor) -> Tensor:
    """What each channel has to do with itself, the diagonal of a covariance."""
    flat = x.flatten(2)
    return x * (flat @ flat.transpose(1, 2)).diagonal(dim1=1, dim2=2).sqrt()[:, :, None, None]


@pytest.mark.parametrize("between", [channel_attention, repeated_attention, variances])
def test_channels_that_are_held_against_each_other_are_pruned(between: Callable[[Tensor], Tensor]) -> None:
    assert prunable(lawful_graph(randomised(Between(between)), image())) == {"a": 7}


@pytest.mark.parametrize(
    "between",
    [
        lambda y: y * F.avg_pool1d(y.mean((2, 3))[:, None], 3, 1, 1)[:, 0, :, None, None],  # ECA without weights
        lambda y: y * F.max_pool1d(y.mean((2, 3))[:, None], 3, 1, 1)[:, 0, :, None, None],
        lambda y: y * F.interpolate(y.mean((2, 3))[:, None], 7, mode="linear")[:, 0, :, None, None],
    ],
)
def test_windows_over_the_channels_hold_them_although_their_number_stays(between: Callable[[Tensor], Tensor]) -> None:
    graph = lawful_graph(randomised(Between(between)), image())

    assert prunable(graph) == {}
    assert "resized by" in frozen(graph)["a"]


def test_windows_of_one_channel_are_no_windows_over_them() -> None:
    def pooled(y: Tensor) -> Tensor:
        return F.max_pool2d(y.mean(3)[:, None], (1, 3), (1, 1), (0, 1))[:, 0, :, :, None] + y

    assert prunable(lawful_graph(randomised(Between(pooled)), image())) == {"a": 7}


def test_a_weight_of_which_only_the_size_is_asked_for_is_not_held() -> None:
    class Counting(Between):
        def forward(self, x: Tensor) -> Tensor:
            assert self.a.weight[0, 0].numel() == 1
            return super().forward(x)

    assert prunable(lawful_graph(randomised(Counting(torch.relu)), image())) == {"a": 7}
