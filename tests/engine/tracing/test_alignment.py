"""What becomes of slices of channels leaves no trace in labels: they have to hold the same channels after a cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cuts import lawful_graph, prunable
from nets import Between, image, randomised
from torch import Tensor, nn

from autoprune.engine.tracing.build_graph import build_graph
from autoprune.engine.tracing.forward import input_specs, meta_copy, run_labelled
from autoprune.engine.tracing.labelled_run import GroupingMode
from autoprune.engine.tracing.probe import Probe


def halved(y: Tensor) -> Tensor:
    middle = y.shape[1] // 2
    return torch.cat([torch.relu(y[:, :middle]), y[:, middle:]], 1)


@pytest.mark.parametrize("middle", [3, 4])
def test_slices_of_a_cut_model_that_hold_other_channels_are_noticed(middle: int) -> None:
    net = meta_copy(Between(halved))
    probe = Probe(net, run_labelled(net, tuple(input_specs(image())), GroupingMode()))
    graph = build_graph(probe.dense, {})

    assert "would be in a slice" in str(probe.try_cut(graph, np.array([middle % 7, 6])).failure)


def test_slices_that_are_put_together_again_are_left_alone() -> None:
    graph = lawful_graph(randomised(Between(lambda y: torch.cat([y[:, : y.shape[1]], y], 1)[:, : y.shape[1]])), image())

    assert prunable(graph) == {"a": 7}


class HalvesReadInGroups(nn.Module):
    """The two halves are treated differently, and a layer with one output a group reads them: only a half can go."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.grouped, self.b = nn.Conv2d(3, 10, 1), nn.Conv2d(10, 2, 1, groups=2), nn.Conv2d(10, 7, 1)
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = halved(self.a(x))
        return self.head(torch.cat([self.grouped(x), self.b(x)], 1).mean((2, 3)))


def test_a_half_that_is_left_alone_may_not_be_halved_again() -> None:
    graph = lawful_graph(randomised(HalvesReadInGroups()), image())

    assert prunable(graph) == {"a": 1, "b": 7}


def test_of_two_channels_that_are_treated_differently_none_may_go() -> None:
    graph = lawful_graph(randomised(Between(halved, width=2)), image())

    assert set(prunable(graph).values()) <= {1}
