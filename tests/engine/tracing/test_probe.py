"""The probe finds sizes and places that are written in a model's code, and freezes no more than it must."""

from __future__ import annotations

import torch
from nets import Chain, image
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.tracing.culprits import probed_graph
from autoprune.engine.tracing.forward import input_specs, meta_copy, run_labelled
from autoprune.engine.tracing.labelled_run import GroupingMode
from autoprune.engine.tracing.probe import Probe
from autoprune.engine.tracing.trace import trace


def sizes(graph: ChannelGraph) -> dict[str, int]:
    return {group.id: group.size for group in graph.prunable}


def frozen(graph: ChannelGraph) -> dict[str, str]:
    return {group.id: group.frozen for group in graph.groups if group.frozen}


class HardCodedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 7, 1), nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = x.view(x.shape[0], 6, x.shape[2], x.shape[3])
        return self.c(self.b(x)).mean((2, 3))


def test_the_probe_freezes_only_the_group_whose_size_is_written_in_the_code() -> None:
    graph = trace(HardCodedView(), image())

    assert {"b": 7} == sizes(graph)
    assert "the model's code fixes its size" in frozen(graph)["a"]


class AddedSlice(nn.Module):
    """Reads four of seven channels by number: the slice keeps its place when a channel before it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 7, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x)[:, 2:6] + self.b(x)).mean((2, 3))


def test_channels_picked_by_number_are_not_pruned_although_the_cut_model_would_run() -> None:
    graph = trace(AddedSlice(), image())

    assert {"a#3": 1} == sizes(graph)  # the one behind the slice
    assert any("fixes" in why for why in frozen(graph).values())


class SlicedOnceCut(nn.Module):
    """Takes channels by number only where there are fewer than seven of them, as slices up to a size do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x if x.shape[1] == 7 else torch.cat([x[:, :2], x[:, 2:]], 1)).mean((2, 3))


def probe_of(net: nn.Module) -> Probe:
    copy = meta_copy(net)
    return Probe(copy, run_labelled(copy, tuple(input_specs(image())), GroupingMode()))


def test_what_a_cut_shows_stays_with_the_probe_and_the_run_of_the_dense_model_is_as_it_was() -> None:
    probe = probe_of(SlicedOnceCut())
    before = (probe.takes_by_number, probe.dense.evidence.takes_by_number, probe.dense.mode)

    graph = probed_graph(probe)

    assert before == (False, False, GroupingMode())
    assert (probe.takes_by_number, probe.dense.evidence.takes_by_number) == (True, False)
    assert sizes(graph) == {"a": 7}


def test_a_verdict_says_why_a_group_cannot_be_cut_and_nothing_about_one_that_can() -> None:
    probe = probe_of(HardCodedView())
    graph = trace(Chain(), image())
    chain = probe_of(Chain())

    assert chain.failure(graph, graph.prunable) is None
    dense = probed_graph(probe)
    culprit = next(group for group in dense.groups if group.id == "a")
    assert "the model's code fixes its size" in str(probe.failure(dense, [culprit]))


class CountsChannels(nn.Module):
    """Returns a tensor that is as long as there are channels, without any of them: what no box was found for."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 11, 1), nn.Conv2d(11, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(self.a(x))
        return self.c(y).mean((1, 2, 3)), y.new_zeros(0, y.shape[1])


def test_outputs_keep_their_shapes() -> None:
    graph = trace(CountsChannels(), image())

    assert sizes(graph) == {"a": 7, "c": 5}
    assert frozen(graph) == {"b": "the model's output would have another shape"}
