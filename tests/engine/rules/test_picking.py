"""Numbers that were found channel by channel belong to the channels that they were found in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cuts import frozen, lawful_graph, prunable
from nets import Between, image, randomised
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.tracing.trace import trace


class Places(nn.Module):
    """`pick` gets the maps of two layers of 7 filters each and picks from the second at places found in the first."""

    def __init__(self, pick: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 7, 1), nn.Conv2d(3, 7, 1), nn.Conv2d(7, 5, 1)
        self.pick = pick

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pick(self.a(x), self.b(x)))


def unpooled(a: Tensor, b: Tensor) -> Tensor:
    _, places = F.max_pool2d(a, 2, return_indices=True)
    return F.max_unpool2d(F.avg_pool2d(b, 2), places, 2)


def unpooled_adaptively(a: Tensor, b: Tensor) -> Tensor:
    _, places = F.adaptive_max_pool2d(a, 3, return_indices=True)
    return F.max_unpool2d(F.adaptive_avg_pool2d(b, 3), places, 2)


def at_the_highest(a: Tensor, b: Tensor) -> Tensor:
    return b.flatten(2).gather(2, a.flatten(2).argmax(2, keepdim=True))[..., None]


def at_the_lowest(a: Tensor, b: Tensor) -> Tensor:
    return b.flatten(2).gather(2, a.flatten(2).argmin(2)[..., None])[..., None]


def at_the_five_highest(a: Tensor, b: Tensor) -> Tensor:
    return b.flatten(2).take_along_dim(a.flatten(2).topk(5, 2).indices, 2)[..., None]


def sorted_by(a: Tensor, b: Tensor) -> Tensor:
    return b.flatten(2).gather(2, a.flatten(2).argsort(2)).view_as(b)


def scattered(a: Tensor, b: Tensor) -> Tensor:
    return torch.zeros_like(b).flatten(2).scatter(2, a.flatten(2).argsort(2), b.flatten(2)).view_as(b)


def table_by_place(a: Tensor, b: Tensor) -> Tensor:
    table = torch.arange(100.0, dtype=b.dtype, device=b.device).sin()
    return b * table[a.flatten(2).argmax(2)][..., None, None]


TIED = (unpooled, unpooled_adaptively, at_the_highest, at_the_lowest, at_the_five_highest, sorted_by, scattered)


@pytest.mark.parametrize("pick", [*TIED, table_by_place])
def test_places_found_in_one_layers_channels_tie_these_to_the_channels_they_are_used_in(pick) -> None:  # type: ignore[no-untyped-def]
    graph = lawful_graph(randomised(Places(pick)), image(6))

    assert prunable(graph) == {"a": 7}
    assert {"a", "b", "head"} <= set(graph.by_id["a"].layers)


def test_positions_of_channels_hold_the_channels() -> None:
    for over_channels in (
        lambda y: y * y.mean((2, 3)).argmax(1)[:, None, None, None],
        lambda y: y * y.argmax(),
        lambda y: y.gather(1, y.argsort(1)),
        lambda y: y.gather(1, y.topk(7, 1).indices),
    ):
        graph = trace(Between(over_channels), image())

        assert prunable(graph) == {}
        assert "over the channels" in frozen(graph)["a"]


class Codes(nn.Module):
    """Every pixel becomes the nearest of 13 codes (VQ-VAE): numbers without channels pick rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.codes, self.b = nn.Conv2d(3, 7, 1), nn.Embedding(13, 7), nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).permute(0, 2, 3, 1)
        distances = y.pow(2).sum(-1, keepdim=True) - 2 * y @ self.codes.weight.t() + self.codes.weight.pow(2).sum(1)
        return self.b(self.codes(distances.argmin(-1)).permute(0, 3, 1, 2))


def test_codes_lose_the_channels_of_what_they_stand_for_and_stay_themselves() -> None:
    graph = lawful_graph(randomised(Codes()), image())

    assert prunable(graph) == {"a": 7}
