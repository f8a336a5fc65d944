"""What a unit saves, by hand, and that scores are divided by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.allocation.prices import LEAST, flops_per_unit, saved_per_unit
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError
from autoprune.recipe import Allocation, Target


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    layers = [nn.Conv2d(3, 11, 3, padding=1), nn.ReLU(), nn.Conv2d(11, 7, 1), nn.ReLU(), nn.Conv2d(7, 5, 1)]
    return trace(nn.Sequential(*layers).eval(), torch.zeros(1, 3, 9, 9))


def test_flops_of_a_unit_by_hand(graph: ChannelGraph) -> None:
    """A channel of the first layer has 3 * 9 weights and 7 readers, one of the second 11 weights and 5 readers."""
    assert flops_per_unit(graph) == pytest.approx({"0": 1.0, "2": (11 + 5) / (27 + 7)})


def test_half_a_group_goes_and_nothing_is_free(graph: ChannelGraph) -> None:
    """Blocks of four of the first layer: of 11 channels 5 go, three blocks become two."""
    prices = saved_per_unit(graph, lambda counts: np.ceil(counts[:, graph.column["0"]] / 4.0))

    assert prices == {"0": 1.0, "2": LEAST}


def test_where_nothing_saves_anything_all_count_alike(graph: ChannelGraph) -> None:
    assert saved_per_unit(graph, lambda counts: np.ones(len(counts))) == {"0": 1.0, "2": 1.0}


def kept(graph: ChannelGraph, **allocation: object) -> dict[str, int]:
    scores = {"0": np.arange(1.0, 12), "2": np.arange(1.0, 8) * 11 / 7}
    return allocate(graph, scores, Target(flops=0.5), Allocation(normalise="none", **allocation)).widths(graph)  # type: ignore[arg-type]


def test_what_costs_more_goes_sooner(graph: ChannelGraph) -> None:
    plain, by_flops = kept(graph), kept(graph, per="flops")
    dear, cheap = (kept(graph, per="given", prices={"0": price}) for price in (1.0, 0.1))

    assert by_flops["0"] < plain["0"]
    assert by_flops["2"] > plain["2"]
    assert kept(graph, per="given", prices={"0": 1.0, "2": 16 / 34}) == by_flops
    assert dear == plain  # groups that are not named count 1
    assert cheap["0"] > plain["0"]


def test_the_target_is_met(graph: ChannelGraph) -> None:
    scores = {group.id: np.arange(1.0, group.size + 1) for group in graph.prunable}
    keep = allocate(graph, scores, Target(flops=0.5), Allocation(per="flops"))

    assert cost(graph, keep).flops / cost(graph, Keep.all()).flops == pytest.approx(0.5, abs=0.01)


def test_a_graph_has_no_latency(graph: ChannelGraph) -> None:
    with pytest.raises(InputError, match=r"allocation.per: a graph has no latency; allowed: channel, flops, given;"):
        kept(graph, per="latency")
