"""What slices say about the lengths that a module's code works with."""

from __future__ import annotations

import sys

import torch
from nets import image
from torch import Tensor, nn

from autoprune.engine.tracing.trace import trace


class TwoOfOneWidth(nn.Module):
    """Halves of 7 channels, split by a number, and 7 other channels that the code takes whole, as `x[:]`."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.halves, self.other = 7, nn.Conv2d(3, 14, 1), nn.Conv2d(3, 7, 1)
        self.first, self.second = nn.Conv2d(7, 5, 1), nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.halves(x).split([self.width] * 2, 1)
        whole = torch.ops.aten.slice.Tensor(self.other(x), 1, 0, sys.maxsize)
        return self.first(gate.sigmoid() * value) + self.second(whole)


def test_a_slice_of_everything_says_nothing_about_lengths() -> None:
    """Torch 2.6 calls it for every `:` of an index, later versions do not: the number is that of the halves alone."""
    graph = trace(TwoOfOneWidth(), image())

    assert {group.id: group.size for group in graph.prunable} == {"halves": 7, "other": 7}
