"""The law that masked networks compute what cut ones compute, for networks that tests write down."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.plain_operations import plain_operations
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


def prunable(graph: ChannelGraph) -> dict[str, int]:
    return {group.id: group.size for group in graph.prunable}


def frozen(graph: ChannelGraph) -> dict[str, str]:
    return {group.id: group.frozen for group in graph.groups if group.frozen}


def random_keep(graph: ChannelGraph, seed: int) -> Keep:
    """Of every group a random number of units, chosen at random."""
    draw = np.random.default_rng(seed)
    return Keep.of({g.id: draw.permutation(g.size)[: draw.integers(1, g.size, endpoint=True)] for g in graph.prunable})


def lawful_graph(net: nn.Module, images: Tensor, seeds: int = 4) -> ChannelGraph:
    """The graph of a network of which random cuts have been shown to compute what the masked network computes.

    Cuts with folding have been run, too.
    """
    with torch.no_grad():
        net.eval()(images)  # weight norm's hook leaves a weight that Python copies only without a graph
    net, images = copy.deepcopy(net).double(), images.double()
    graph = trace(net, images)
    for seed in range(seeds):
        keep = random_keep(graph, seed)
        with torch.no_grad(), plain_operations():
            masked, cut = mask(net, graph, keep)(images), prune(net, graph, keep, fold=False)(images)
            torch.testing.assert_close(masked, cut, rtol=1e-6, atol=1e-6 * masked.abs().max().item())
            assert prune(net, graph, keep)(images).shape == cut.shape
    return graph
