"""What becomes of slices of channels leaves no trace in labels: they have to hold the same channels after a cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cuts import lawful_graph, prunable
from nets import Between, image, randomised
from torch import Tensor

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
