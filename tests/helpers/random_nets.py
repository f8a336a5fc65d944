"""Networks drawn at random: a list of nodes and the module that runs it, and random keeps.

A `Spec` is data: hypothesis prints and shrinks it, and `build(spec)` makes the network again from what was printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import random_mixing  # noqa: F401 - registers all kinds
import torch
from hypothesis import strategies as st
from random_nodes import KINDS, WIDEST, WINDOWS, Shape
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep

CLASSES = 5


@dataclass(frozen=True)
class Node:
    """One step: `kind` applied to the values `sources` (0 is the image, i the output of node i - 1)."""

    kind: str
    sources: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Spec:
    """A network as data: height and width of the image, what happens to it, and how values become logits."""

    image: tuple[int, int]
    nodes: tuple[Node, ...]
    head: str


# Their module may be used again on another value with the same number of channels and at least as many pixels.
SHAREABLE = (
    "conv",
    "grouped",
    "depthwise",
    "linear",
    "batch_norm",
    "prelu",
    "residual",
    "squeeze_excite",
    "layer_norm",
)

# What couples channels in most networks, and what applies to few shapes, is drawn more often than the rest.
OFTEN = {"conv": 3, "grouped": 6, "add": 3, "concat": 2, "shuffle": 3, "chunk": 6, "split": 3, "pixel_shuffle": 6}
OFTEN |= {
    "swapped": 2,
    "pixel_unshuffle": 3,
    "group_norm": 2,
    "multihead_attention": 3,
    "own_attention": 2,
    "depthwise": 2,
}


class RandomNet(nn.Module):
    """Runs nodes; values that no node reads go to the head."""

    def __init__(self, image: tuple[int, int]) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.shapes: list[Shape] = [(3, *image)]
        self.layers = nn.ModuleList()
        self.head_mode = "open"

    def add(self, node: Node) -> None:
        """Append a node; its output's shape is found by running it."""
        shapes = [self.shapes[source] for source in node.sources]
        layer = self.layers[node.options["of"]] if node.kind == "reuse" else _layer(node, shapes[0])
        with torch.no_grad():
            out = layer.eval()(*(torch.zeros(2, *shape) for shape in shapes))
        self.nodes.append(node)
        self.layers.append(layer)
        self.shapes.append(tuple(out.shape[1:]))

    def close(self, head_mode: str) -> None:
        """A linear layer on the means (`mean`) or on all pixels (`flatten`) of what is left."""
        loose = [self.shapes[value] for value in self.loose()]
        inputs = sum(c * (h * w if head_mode == "flatten" else 1) for c, h, w in loose)
        self.head, self.head_mode = nn.Linear(inputs, CLASSES), head_mode

    def loose(self) -> list[int]:
        read = {source for node in self.nodes for source in node.sources}
        return [value for value in range(1, len(self.shapes)) if value not in read]

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for node, layer in zip(self.nodes, self.layers, strict=True):
            values.append(layer(*(values[source] for source in node.sources)))
        left = [values[value] for value in self.loose()]
        flat = [v.mean((2, 3)) if self.head_mode == "mean" else v.flatten(1) for v in left]
        return self.head(torch.cat(flat, 1))


def _layer(node: Node, shape: Shape) -> nn.Module:
    return KINDS[node.kind].build(shape, **node.options)


def build(spec: Spec, seed: int = 0) -> RandomNet:
    """The network of a spec in eval mode and double precision, with random weights, scales, shifts and statistics.

    Double, so that what differs by more than rounding is wrong: a norm over nearly equal entries magnifies float32's
    rounding to more than any tolerance worth having.
    """
    net = RandomNet(spec.image)
    for node in spec.nodes:
        net.add(node)
    net.close(spec.head)
    return filled(net, seed).double().eval()


def filled(net: nn.Module, seed: int) -> nn.Module:
    """Every parameter and statistic random and of sane size: matrices 1 / sqrt(inputs), vectors around 1 or 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.named_parameters():
        around = 1.0 if tensor.dim() == 1 and name.endswith("weight") else 0.0
        spread = 1 / 3 if tensor.dim() == 1 else tensor[0].numel() ** -0.5
        tensor.data.copy_(around + spread * torch.randn(tensor.shape, generator=generator))
    for name, tensor in net.named_buffers():
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3)
        elif name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net


def pictures(spec: Spec, batch: int = 2) -> Tensor:
    """A fixed random batch that fits the network."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *spec.image, generator=generator, dtype=torch.float64)


# ---- strategies ------------------------------------------------------------------------------------------------------


@st.composite
def specs(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(KINDS), most: int = 8) -> Spec:
    """A convolution of the image and up to `most` draws of further nodes on any values so far; half without traps."""
    if draw(st.booleans()):
        kinds = tuple(name for name in kinds if KINDS[name].free) or kinds
    net = RandomNet(draw(st.sampled_from(((6, 6), (9, 7), (8, 6)))))
    (stem,) = draw(KINDS["conv"].options(net.shapes[0]))
    net.add(Node("conv", (0,), stem))
    for _ in range(draw(st.integers(0, most))):
        for node in draw(_nodes(net, kinds)):
            net.add(node)
    return Spec(tuple(net.shapes[0][1:]), tuple(net.nodes), draw(st.sampled_from(("mean", "flatten"))))


@st.composite
def _nodes(draw: st.DrawFn, net: RandomNet, kinds: tuple[str, ...]) -> list[Node]:
    source = len(net.shapes) - 1 - draw(st.integers(0, min(4, len(net.shapes) - 1)))
    shape = net.shapes[source]
    fits = {name: options for name in kinds if (options := KINDS[name].options(shape)) is not None}
    if shape[0] > WIDEST // 2:
        fits = {"conv": KINDS["conv"].options(shape)}
    earlier = [i for i, node in enumerate(net.nodes) if _reusable(net, node, shape)]
    if earlier and draw(st.integers(0, 9)) == 9:
        return [Node("reuse", (source,), {"of": draw(st.sampled_from(earlier))})]
    name = draw(st.sampled_from([name for name in fits for _ in range(OFTEN.get(name, 1))]))
    partners = _partners(draw, net, source, KINDS[name].partners)
    return [Node(name, (source, *partners), options) for options in draw(fits[name])]


def _partners(draw: st.DrawFn, net: RandomNet, source: int, which: str) -> list[int]:
    if which == "none":
        return []
    shape = net.shapes[source]
    among = [
        i for i, other in enumerate(net.shapes) if other == shape or (which == "pixels" and other[1:] == shape[1:])
    ]
    return draw(st.lists(st.sampled_from(among[::-1]), min_size=1, max_size=2))


def _reusable(net: RandomNet, node: Node, shape: Shape) -> bool:
    first = net.shapes[node.sources[0]]
    return node.kind in SHAREABLE and first[0] == shape[0] and min(shape[1:]) >= min(first[1:])


@st.composite
def keeps(draw: st.DrawFn, graph: ChannelGraph, least: int = 1) -> Keep:
    """Any part, of at least `least` units, of any groups."""
    kept = {}
    for group in graph.prunable:
        if draw(st.booleans()):
            fewest = min(least, group.size)
            kept[group.id] = draw(st.sets(st.integers(0, group.size - 1), min_size=fewest))
    return Keep.of(kept)


def is_free(spec: Spec) -> bool:
    """Nothing in this network holds channels fast: only what becomes logits is frozen.

    The image's channels always stay, so it may only be read by convolutions, and those by nothing else.
    """
    reused = {node.options["of"] for node in spec.nodes if node.kind == "reuse"}
    for place, node in enumerate(spec.nodes):
        if node.kind != "reuse" and not KINDS[node.kind].free:
            return False
        if 0 in node.sources and (node.kind != "conv" or place in reused):
            return False
    return True


FREE = tuple(name for name, kind in KINDS.items() if kind.free)
# A pruned channel's filter gone, these emit the same for every pixel and image: what folding adds to a bias is exact.
FOLDING = (
    "conv", "grouped", "depthwise", "linear", "batch_norm", "prelu", "layer_scale", "activation", "pool", "upsample",
    "shuffle", "chunk", "split", "gated_linear_unit", "add", "multiply", "maximum", "stack_mean", "concat",
)  # fmt: skip


def folds(spec: Spec) -> bool:
    """No zeros are padded around what is convolved or averaged, and no layer is used twice."""
    return all(
        node.kind in FOLDING and node.options.get("window", WINDOWS[0])[2] == 0 and node.options.get("mode") != "smooth"
        for node in spec.nodes
    )
