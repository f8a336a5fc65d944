"""One attribute that counts the filters of several layers: they are cut together; what it does not count is not."""

from __future__ import annotations

import torch
from nets import image, randomised
from torch import Tensor, nn

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


class Gated(nn.Module):
    """Two layers of `width` filters that never meet, both reshaped by the attribute."""

    def __init__(self, width: int = 11) -> None:
        super().__init__()
        self.width = width
        self.key, self.value = nn.Conv2d(7, width, 1), nn.Conv2d(7, width, 1)
        self.out = nn.Conv2d(width, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        key = self.key(x).view(len(x), self.width, -1)
        gate = key.softmax(2).amax(1, keepdim=True)
        value = self.value(x).view(len(x), self.width, -1) * gate
        return x + self.out(value.view(len(x), self.width, *x.shape[2:]))


def test_layers_that_one_attribute_counts_are_cut_together_in_every_block() -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 7, 1), Gated(), Gated(13), nn.Conv2d(7, 5, 1)))
    graph = trace(net, image())
    keep = Keep.of({"1.key": [0, 2, 3, 7, 9], "2.key": [1, 4, 8], "0": [0, 1, 5]})
    cut = prune(net, graph, keep, fold=False)

    assert {group.id: group.size for group in graph.prunable} == {"0": 7, "1.key": 11, "2.key": 13}
    assert {"1.key", "1.value"} <= set(graph.by_id["1.key"].layers)
    assert (cut[1].width, cut[2].width) == (5, 3)
    with torch.no_grad():
        torch.testing.assert_close(cut(image()), mask(net, graph, keep)(image()))


class Asks(nn.Module):
    """Splits by a number that a module inside it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.update, self.head = nn.Conv2d(3, 24, 1), nn.Conv2d(11, 13, 1), nn.Conv2d(26, 5, 1)
        self.update.hidden_size = 11

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        hidden, context = x.split([self.update.hidden_size, x.shape[1] - self.update.hidden_size], 1)
        return self.head(torch.cat([self.update(hidden), context], 1))


def test_a_number_that_the_module_around_asks_for_follows_its_channels() -> None:
    graph = trace(Asks(), image())

    assert {group.id: group.size for group in graph.prunable} == {"encoder": 11, "encoder#2": 13, "update": 13}
