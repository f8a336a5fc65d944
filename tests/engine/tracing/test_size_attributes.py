"""A number that a module holds is taken for a number of channels only if its name allows that."""

from __future__ import annotations

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
