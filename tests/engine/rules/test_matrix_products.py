"""Weights and activations that take each other's part: products with keys, weights in two roles, channel attention."""

from __future__ import annotations

import torch
from cuts import frozen, lawful_graph, prunable
from nets import image, randomised
from torch import Tensor, nn
from torch.nn import functional as F

OUTPUT = "reaches the model's output"


class KeysAsFilters(nn.Module):
    """Every pixel's key is a 1x1 filter that the queries are convolved with; values come back the same way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 11, 3), nn.BatchNorm2d(11)
        self.query, self.key, self.value = (nn.Conv2d(11, width, 1) for width in (7, 7, 13))
        self.head = nn.Conv2d(13, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        keys, values = (layer(x)[0].flatten(1)[..., None, None] for layer in (self.key, self.value))
        weights = F.conv2d(self.query(x), keys.transpose(0, 1)).softmax(1)
        return self.head(F.conv2d(weights, values))


def test_filters_that_are_another_layers_inputs_are_filters_still() -> None:
    net = randomised(KeysAsFilters())
    graph = lawful_graph(net, image(7, 1))

    assert prunable(graph) == {"stem": 11, "query": 7, "value": 13}
    assert {s.tensor: s.role for s in graph.slots if s.dim == 0 and s.tensor.endswith("weight")} == {
        "stem.weight": "out",
        "norm.weight": "scale",
        "query.weight": "out",
        "key.weight": "out",
        "value.weight": "out",
        "head.weight": "out",
    }


class Tied(nn.Module):
    """An encoder and a decoder with one weight: linear layers, or a convolution and its transpose."""

    def __init__(self, convolve: bool) -> None:
        super().__init__()
        self.stem, self.head, self.convolve = nn.Conv2d(3, 11, 3), nn.Conv2d(11, 5, 1), convolve
        if convolve:
            self.encode, self.decode = nn.Conv2d(11, 7, 3), nn.ConvTranspose2d(7, 11, 3)
            self.decode.weight = self.encode.weight
        else:
            self.encode, self.shift = nn.Linear(11, 7), nn.Parameter(torch.ones(11))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        if self.convolve:
            return self.head(F.relu(self.decode(torch.sigmoid(self.encode(x)))))
        hidden = torch.sigmoid(self.encode(x.movedim(1, -1)))
        return self.head(F.relu(F.linear(hidden, self.encode.weight.t(), self.shift)).movedim(-1, 1))


def test_a_weight_in_two_roles_is_pruned_along_both_dimensions_and_not_folded_into() -> None:
    for convolve in (False, True):
        net = randomised(Tied(convolve))
        graph = lawful_graph(net, image(9))

        assert prunable(graph) == {"stem": 11, "encode": 7}
        assert {s.role for s in graph.slots if s.tensor == "encode.weight"} == ({"out"})


class ChannelAttention(nn.Module):
    """Channels attend to channels, in heads (Restormer, XCiT); `by_width` takes the heads' width from the stream."""

    def __init__(self, heads: int, by_width: bool = False) -> None:
        super().__init__()
        width = 5 * heads
        self.heads, self.by_width = heads, by_width
        self.stem, self.out, self.head = nn.Conv2d(3, width, 3), nn.Linear(width, width), nn.Conv2d(width, 5, 1)
        self.mixed, self.temperature = nn.Linear(width, 3 * width), nn.Parameter(torch.full((heads, 1, 1), 0.7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        width = c // self.heads if self.by_width else -1
        tokens = self.mixed(x.flatten(2).transpose(1, 2)).reshape(n, h * w, 3, self.heads, width)
        q, k, v = tokens.permute(2, 0, 3, 4, 1).unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        mixed = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(-1) @ v
        return self.head(x + self.out(mixed.permute(0, 3, 1, 2).reshape(n, h * w, -1)).transpose(1, 2).view_as(x))


def test_attention_over_channels_is_pruned_by_the_same_offsets_of_every_head() -> None:
    for heads in (1, 3):
        graph = lawful_graph(randomised(ChannelAttention(heads)), image(7, 1))

        assert prunable(graph) == {"stem": 5 * heads, "mixed": 5}
        assert frozen(graph) == {"head": OUTPUT}


def test_channel_attention_whose_heads_take_their_width_from_the_stream_is_linked_to_it() -> None:
    graph = lawful_graph(randomised(ChannelAttention(3, by_width=True)), image(7, 1))

    assert prunable(graph) == {"stem": 5}


def test_filters_from_the_left_are_filters() -> None:
    class FromTheLeft(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.own, self.b = nn.Conv2d(3, 7, 1), nn.Parameter(torch.randn(11, 7)), nn.Conv2d(11, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b((self.own @ self.a(x).flatten(2)).unflatten(2, x.shape[2:]))

    assert prunable(lawful_graph(FromTheLeft(), image())) == {"a": 7, "own": 11}


class GroupedUpsampling(nn.Module):
    """A transposed convolution in groups, and one that reads its outputs in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 14, 3), nn.ConvTranspose2d(14, 4, 2, groups=2, bias=False)
        self.mixed, self.head = nn.Conv2d(14, 4, 1, groups=2), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        up = self.up(x)[..., 1:, 1:]
        return self.head(torch.cat([up, self.mixed(x)], 1))


def test_a_transposed_convolution_may_be_cut_to_one_output_a_group() -> None:
    graph = lawful_graph(randomised(GroupedUpsampling()), image(7, 1))

    assert prunable(graph) == {"stem": 7, "up": 2, "mixed": 2}
