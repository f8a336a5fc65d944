"""Groups of equal width lose different numbers of units, so that code that takes one width for the other shows."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from cuts import lawful_graph, prunable
from nets import image, randomised
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.tracing.probe_masks import first_masks, further_masks
from autoprune.engine.tracing.trace import trace


def chain(widths: list[int]) -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in pairwise([3, *widths, 5])))


@pytest.mark.parametrize("width", [2, 3, 7, 64])
def test_no_two_groups_of_equal_width_lose_equally_in_every_pass(width: int) -> None:
    graph = trace(chain([width] * 4), image())
    masks = list(first_masks(graph, graph.prunable))

    lost = [[int((~stays[group.units]).sum()) for stays in masks] for group in graph.prunable]
    assert all(a != b for a, b in combinations(lost, 2))
    assert all(0 < sum(own) for own in lost)
    assert len(masks) == {2: 3, 3: 3, 7: 2, 64: 1}[width]


def test_where_channels_are_taken_by_number_some_cut_leaves_half_at_most_and_one_of_three() -> None:
    graph = trace(chain([3, 7, 64]), image())
    left = [
        [int(stays[group.units].sum()) for stays in further_masks(graph, graph.prunable)] for group in graph.prunable
    ]

    assert 1 == min(left[0])
    assert 2 <= min(left[1]) <= 3
    assert 2 <= min(left[2]) <= 32
    assert all(max(own) >= 2 for own in left)


def test_of_three_channels_that_are_padded_two_stay() -> None:
    graph = trace(chain([3]), image())
    left = [int(stays[graph.prunable[0].units].sum()) for stays in further_masks(graph, graph.prunable, padded=True)]

    assert 2 == min(left)


def test_units_of_several_entries_lose_other_lengths_than_single_ones() -> None:
    """15 channels in 3 groups lose 3 at a time, and the layers beside them, as wide, one at a time."""
    net = nn.Sequential(nn.Conv2d(3, 15, 1), nn.Conv2d(15, 15, 1, groups=3), *(nn.Conv2d(15, 15, 1) for _ in range(3)))
    graph = trace(net.append(nn.Conv2d(15, 5, 1)), image())
    (stays, *_more) = first_masks(graph, graph.prunable)

    lost = [15 // group.size * int((~stays[group.units]).sum()) for group in graph.prunable]
    assert {group.size for group in graph.prunable} == {5, 15}
    assert len({*lost}) == len(lost)


class Mixed(nn.Module):
    """A block whose code reads a width off another tensor that happens to be as wide (`of`), or off the right one."""

    def __init__(self, swap: bool) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 11, 1), nn.Conv2d(11, 11, 1), nn.Conv2d(11, 5, 1)
        self.swap = swap

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        inner = F.relu(self.inner(x))
        width = (x if self.swap else inner).shape[1]
        return self.head(inner.reshape(len(x), width, -1).unflatten(2, x.shape[2:]))


def test_layers_of_which_one_is_viewed_by_the_others_width_are_cut_together() -> None:
    graph = lawful_graph(randomised(Mixed(swap=True)), image())

    assert prunable(graph) == {"stem": 11}
    assert {"stem", "inner"} <= set(graph.by_id["stem"].layers)
    assert prunable(lawful_graph(randomised(Mixed(swap=False)), image())) == {"stem": 11, "inner": 11}
