"""The graph of a cut model, without a second trace, and two cuts as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import Concat, Depthwise, Grouped, Residual, Shared, Shuffle, image, randomised
from torch import nn

from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import compose, shrink
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


class Norms(nn.Module):
    """Layer norm, attention in two heads: cross-channel calls, size attributes and a number from a width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 14, 3), nn.LayerNorm(14)
        self.attention = nn.MultiheadAttention(14, 2, batch_first=True)
        self.head = nn.Linear(14, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x).flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


NETS = {net.__name__: net for net in (Residual, Concat, Depthwise, Grouped, Shuffle, Shared, Norms)}


def random_keep(graph: ChannelGraph, seed: int) -> Keep:
    random = np.random.default_rng(seed)
    return Keep.of(
        {
            g.id: random.choice(g.size, random.integers(max(1, g.size // 2), g.size, endpoint=True), replace=False)
            for g in graph.prunable
        }
    )


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_two_cuts_are_the_one_that_they_compose_to(name: str, seed: int) -> None:
    net = randomised(NETS[name]())
    graph = trace(net, image())
    first = random_keep(graph, seed)
    after = shrink(graph, first)
    second = random_keep(after, seed + 100)

    twice = prune(prune(net, graph, first, fold=False), after, second, fold=False)
    once = prune(net, graph, compose(graph, first, second), fold=False)

    assert str(twice) == str(once)
    with torch.no_grad():
        assert torch.allclose(twice(image()), once(image()), atol=1e-5)
    assert cost(after, second) == cost(graph, compose(graph, first, second))


@pytest.mark.parametrize("name", NETS)
def test_it_is_the_graph_that_a_trace_of_the_cut_model_finds(name: str) -> None:
    net = randomised(NETS[name]())
    graph = trace(net, image())
    keep = Keep.of({group.id: range(group.size // 2 + 1) for group in graph.prunable})
    after, again = shrink(graph, keep), trace(prune(net, graph, keep), image())

    assert {g.id: (g.size, g.layers) for g in after.prunable} == {g.id: (g.size, g.layers) for g in again.prunable}
    assert cost(after, Keep.all()) == cost(again, Keep.all()) == cost(graph, keep)
    places = {(slot.tensor, slot.dim, slot.role, len(slot.units)) for slot in again.slots}
    assert {(slot.tensor, slot.dim, slot.role, len(slot.units)) for slot in after.slots} == places
    calls = {(call.name, call.index, call.over) for call in again.cross_channel}
    assert {(call.name, call.index, call.over) for call in after.cross_channel} == calls


def test_a_keep_of_the_first_graph_composed_with_nothing_is_itself() -> None:
    graph = trace(randomised(Residual()), image())
    keep = random_keep(graph, 0)

    assert compose(graph, keep, Keep.all()) == keep
    assert compose(graph, Keep.all(), keep) == keep
    assert compose(graph, Keep.of({"a1.0": [1, 4, 9]}), Keep.of({"a1.0": [0, 2]})) == Keep.of({"a1.0": [1, 9]})
