"""Which groups are of equal structure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from nets import NETS, Residual, image
from torch import nn

from autoprune.engine.allocation.isomorphism import isomorphic_classes
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import shrink
from autoprune.engine.tracing.trace import trace
from autoprune.tasks.zoo import resnet_cifar


def classes_of(graph: ChannelGraph) -> dict[str, int]:
    return {group.id: int(number) for group, number in zip(graph.prunable, isomorphic_classes(graph), strict=True)}


def chain(layers: Sequence[tuple[int, int]]) -> ChannelGraph:
    """Convolutions of these widths and kernels, one after the other."""
    inputs = [3, *(width for width, _ in layers)][:-1]
    convolutions = (nn.Conv2d(n, width, k) for n, (width, k) in zip(inputs, layers, strict=True))
    return trace(nn.Sequential(*convolutions), image())


def test_kernels_count_and_widths_do_not() -> None:
    graph = chain([(7, 1), (11, 3), (13, 3), (17, 3), (19, 1), (5, 1)])

    # 0 sees the three channels of the image; 1 and 2 lie between kernels of 3, 3 between 3 and 1, 4 between 1 and 1
    assert classes_of(graph) == {"0": 0, "1": 1, "2": 1, "3": 2, "4": 3}


def test_a_norm_behind_it_makes_another_class() -> None:
    net = nn.Sequential(*(nn.Conv2d(n, m, 1) for n, m in ((7, 11), (11, 13), (13, 17), (17, 5))))
    plain = trace(nn.Sequential(nn.Conv2d(3, 7, 1), *net), image())
    normed = trace(nn.Sequential(nn.Conv2d(3, 7, 1), net[0], nn.BatchNorm2d(11), *net[1:]).eval(), image())

    assert list(classes_of(plain).values()) == [0, 1, 1, 1]
    assert list(classes_of(normed).values()) == [0, 1, 2, 2]


def test_the_insides_of_all_blocks_of_a_resnet_are_alike_and_its_streams_are_not() -> None:
    graph = trace(resnet_cifar((3, 32, 32), 10, depth=20).eval(), image(32))
    classes = classes_of(graph)
    inside = {number for group, number in classes.items() if group.endswith("conv1") and group != "conv1"}

    assert len(inside) == 1
    assert sum(number in inside for number in classes.values()) == 9


def test_how_many_layers_write_to_a_stream_counts() -> None:
    classes = classes_of(trace(Residual(7, 11), image()))

    assert classes["a1.0"] == classes["b1.0"] != classes["stem.0"]


@pytest.mark.parametrize("name", NETS)
def test_a_cut_leaves_the_classes_as_they_were(name: str) -> None:
    graph = trace(NETS[name]().eval(), image())
    keep = Keep.of({group.id: range(1 + i % group.size) for i, group in enumerate(graph.prunable)})

    assert classes_of(shrink(graph, keep)) == classes_of(graph)
