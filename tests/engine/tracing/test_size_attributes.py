"""A number that a module holds is taken for a number of channels only if its name allows that."""

from __future__ import annotations

import torch
from cuts import lawful_graph, prunable
from nets import image, randomised
from torch import Tensor, nn
from torch.nn import functional as F


class PaddedByTwo(nn.Module):
    """A shortcut at every second pixel, padded by the 2 channels that a branch has more, whose stride is 2 as well."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.stride = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 9, 3, stride=2, padding=1), 2
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y, shortcut = self.conv(x), x[:, :, :: self.stride, :: self.stride]
        return self.head((y + F.pad(shortcut, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))).mean((2, 3)))


def test_a_stride_as_large_as_a_padding_stays() -> None:
    net = randomised(PaddedByTwo())
    graph = lawful_graph(net, image())

    assert prunable(graph) == {"stem": 7, "conv": 2}
    assert "stride" not in {attribute.name for attribute in graph.attributes}


class Numbered(nn.Module):
    """Halves go different ways; `number` is its place in the network, and of the third one the width of a half too."""

    def __init__(self, number: int, c_in: int, width: int) -> None:
        super().__init__()
        self.number, self.conv = number, nn.Conv2d(c_in, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv(x).chunk(2, 1)
        return first * second.sigmoid()


class KeepsSome(nn.Module):
    """Only outputs that are used later are kept, by the numbers of their layers (YOLO)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Numbered(i, c, w) for i, c, w in ((2, 3, 7), (3, 7, 11), (5, 11, 5), (8, 5, 9))])
        self.later, self.head = (5, 8), nn.Conv2d(14, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = {}
        for layer in self.layers:
            x = layer(x)
            kept[layer.number] = x if layer.number in self.later else None
        return self.head(torch.cat([kept[number] for number in self.later], 1))


def test_a_number_that_is_a_width_by_chance_is_left_alone() -> None:
    graph = lawful_graph(randomised(KeepsSome()), image())

    assert prunable(graph) == {f"layers.{i}.conv": width for i, width in enumerate((7, 11, 5, 9))}
    assert "number" not in {attribute.name for attribute in graph.attributes}
