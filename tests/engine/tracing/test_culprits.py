"""Culprits are found among what the failing operation worked with, and in blocks that are alike at once."""

from __future__ import annotations

import torch
from nets import image
from torch import Tensor, nn

from autoprune.engine.tracing.culprits import MOST_PASSES, probed_graph
from autoprune.engine.tracing.forward import input_specs, meta_copy, run_labelled
from autoprune.engine.tracing.labelled_run import GroupingMode
from autoprune.engine.tracing.probe import Probe


class FixedInside(nn.Module):
    """A bottleneck whose code has written down how wide it is."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(7, inner, 1), nn.Conv2d(inner, 11, 1), nn.Conv2d(11, 7, 1)
        self.code = lambda x: x.view(x.shape[0], inner, *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c(self.b(self.code(self.a(x))))


def probe_of(net: nn.Module) -> Probe:
    copy = meta_copy(net)
    return Probe(copy, run_labelled(copy, tuple(input_specs(image())), GroupingMode()))


def test_a_fault_in_each_of_many_blocks_takes_few_cuts_and_freezes_nothing_else() -> None:
    blocks = 20
    probe = probe_of(nn.Sequential(nn.Conv2d(3, 7, 1), *(FixedInside(13) for _ in range(blocks)), nn.Conv2d(7, 5, 1)))

    graph = probed_graph(probe)
    frozen = {group.id for group in graph.groups if group.frozen and "fixes its size" in group.frozen}

    assert frozen == {f"{i + 1}.a" for i in range(blocks)}
    assert {group.id for group in graph.prunable} == {"0"} | {f"{i + 1}.b" for i in range(blocks)}
    assert probe.passes <= MOST_PASSES + 3  # and the last ones show that nothing fails any more


def test_a_suspect_that_fails_only_by_another_is_let_go() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 7, 1), nn.Conv2d(3, 11, 1), nn.Conv2d(11, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            return self.c(torch.cat([a, a.new_zeros(len(a), 4, *a.shape[2:])], 1) + self.b(x))

    graph = probed_graph(probe_of(Added()))

    assert {group.id: group.size for group in graph.prunable} == {"a": 7}
    assert {group.id: group.size for group in graph.groups if group.frozen} == {"b": 4, "c": 5}
