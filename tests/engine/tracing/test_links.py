"""One attribute that counts the filters of several layers: they are cut together; what it does not count is not."""

from __future__ import annotations

import torch
from cuts import lawful_graph, prunable
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


class Reduces(nn.Module):
    """Views one layer's outputs by the width of another's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce = nn.Conv2d(3, 11, 1), nn.Conv2d(11, 11, 2, 2)
        self.head = nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.stem(x)
        tokens = self.reduce(stream).reshape(len(x), stream.shape[1], -1).transpose(1, 2)
        return self.head(tokens).mean(1)


class Focuses(nn.Module):
    """Splits one layer's outputs into parts as wide as its input, and some more whose number the code fixes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(width, 2 * width + 3), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        query, context, gates = self.project(x).split((width, width, 3), -1)
        return x + self.out(query * context * gates.mean(-1, keepdim=True))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 13, 3, 3), nn.Sequential(Focuses(13), Focuses(13))
        self.head = nn.Linear(13, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


def check_cut(net: nn.Module, keep: Keep) -> None:
    graph, x = trace(net, image()), image()
    with torch.no_grad():
        torch.testing.assert_close(prune(net, graph, keep)(x), mask(net, graph, keep)(x))


def test_what_is_viewed_by_another_layers_width_goes_with_it() -> None:
    net = randomised(Reduces())
    assert {group.id: group.size for group in trace(net, image()).prunable} == {"stem": 11}
    check_cut(net, Keep.of({"stem": [0, 3, 4, 8]}))


def test_parts_as_wide_as_the_stream_go_with_it_in_every_block_and_the_others_stay() -> None:
    net = randomised(Tokens())
    graph = trace(net, image())
    assert {group.id: group.size for group in graph.prunable} == {"stem": 13}
    assert {group.id: group.size for group in graph.groups if group.frozen} == {
        "blocks.0.project": 3,
        "blocks.1.project": 3,
        "head": 5,
    }
    check_cut(net, Keep.of({"stem": [1, 2, 6, 9, 12]}))


class Down(nn.Module):
    """Every second pixel, checked by an attribute that counts what comes in and what goes out (diffusers)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return self.conv(x)


def test_widths_that_an_assertion_counts_by_one_attribute_are_cut_together() -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 11, 1), Down(11), nn.Conv2d(11, 13, 1), Down(13), nn.Conv2d(13, 5, 1)))
    graph = lawful_graph(net, image())

    assert prunable(graph) == {"0": 11, "2": 13}
    assert {"0", "1.conv"} <= set(graph.by_id["0"].layers)
