"""Models that count and pick by their data are run once with data; every later pass is told what that one has read."""

from __future__ import annotations

import torch
from nets import image, randomised
from torch import Tensor, nn

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.data_values import DataReader, DataValues
from autoprune.engine.tracing.trace import trace


class Brightest(nn.Module):
    """Pools the pixels that a score prefers, as many as there are, and weighs them by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.score, self.b = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 1, 1), nn.Linear(7, 11)
        self.head = nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        chosen = self.score(x).flatten() > 0
        pixels = x.permute(0, 2, 3, 1).flatten(0, 2)[chosen]
        count = int(chosen.sum().item())
        return self.head(torch.relu(self.b(pixels * (1 / max(count, 1)))).sum(0))


def test_what_only_decides_which_pixels_are_taken_holds_no_channels() -> None:
    net = randomised(Brightest())
    graph = trace(net, image())
    cut = prune(net, graph, Keep.of({"a": [0, 3, 5], "b": [1, 2, 6, 10]}))

    assert {group.id: group.size for group in graph.prunable} == {"a": 7, "b": 11}
    assert cut(image()).shape == (5,)


def test_numbers_and_masks_are_played_back_whatever_the_data_are() -> None:
    values, x = DataValues(), torch.tensor([3.0, -1.0, 2.0])
    aten = torch.ops.aten
    first = DataReader(values)
    picked = first.call(aten.index.Tensor, (x, [x > 0]), {})[1]
    number = first.call(aten._local_scalar_dense.default, (x[1],), {})[1]
    values.complete = True

    again, empty = DataReader(values), torch.empty(3, device="meta")
    shape = again.call(aten.index.Tensor, (empty, [empty > 0]), {})[1].shape
    same = again.call(aten._local_scalar_dense.default, (empty[1],), {})[1]

    assert picked.tolist() == [3, 2]
    assert shape == (2,)
    assert number == same == -1
