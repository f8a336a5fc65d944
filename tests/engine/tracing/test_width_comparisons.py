"""Code that compares two widths: a cut may make them equal by chance, so one of the two must stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.engine.tracing.trace import trace
from autoprune.engine.tracing.width_comparisons import compares_numbers


class _Pair(nn.Module):
    """Two convolutions of 11 and 13 channels, added where they are as wide: they never are, until they are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 11, 3), nn.Conv2d(11, 13, 3, padding=1)
        self.head = nn.Conv2d(13, 5, 1)

    def as_wide(self, x: Tensor, y: Tensor) -> bool:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        y = self.b(x).relu()
        return self.head(y + x if self.as_wide(x, y) else y).mean((2, 3))


class _ByShape(_Pair):
    def as_wide(self, x: Tensor, y: Tensor) -> bool:
        return x.shape[1] == y.shape[1]


class _BySize(_Pair):
    def as_wide(self, x: Tensor, y: Tensor) -> bool:
        return x.size(1) == y.size(1)


class _ByAttribute(_Pair):
    def as_wide(self, x: Tensor, y: Tensor) -> bool:
        return self.b.in_channels == self.b.out_channels


def _wider(x: Tensor, y: Tensor) -> bool:
    return x.shape[1] < y.shape[1]


class _ByOrder(_Pair):
    def as_wide(self, x: Tensor, y: Tensor) -> bool:
        return not _wider(x, y)


class _ByConstant(_Pair):
    def as_wide(self, x: Tensor, y: Tensor) -> bool:
        return self.b.stride == (2, 2) or x.shape[1] == 17


@pytest.mark.parametrize("network", [_ByShape, _BySize, _ByAttribute, _ByOrder], ids=lambda kind: kind.__name__)
def test_of_two_widths_that_the_code_compares_one_stays(network: type[_Pair]) -> None:
    model = network().eval()

    graph = trace(model, torch.zeros(1, 3, 8, 8))

    assert compares_numbers(model)
    assert {group.id for group in graph.prunable} in ({"a"}, {"b"})
    assert any("compares" in str(group.frozen) for group in graph.groups)


def test_a_comparison_with_a_constant_holds_nothing_up() -> None:
    model = _ByConstant().eval()

    assert not compares_numbers(model)
    assert {group.id for group in trace(model, torch.zeros(1, 3, 8, 8)).prunable} == {"a", "b"}


def test_torchs_own_modules_are_not_read() -> None:
    assert not compares_numbers(nn.Sequential(nn.Conv2d(3, 7, 1), nn.MultiheadAttention(8, 2), nn.LSTM(7, 5)))


class _BesideItsInput(nn.Module):
    """A shortcut where the layer is as wide as what comes in, which it may become by a cut."""

    def __init__(self, c_in: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + x if self.conv.in_channels == self.conv.out_channels else y


@pytest.mark.parametrize(
    ("first", "second", "pruned"), [(11, 3, "1.conv"), (3, 11, "0"), (7, 9, "0"), (9, 7, "1.conv")]
)
def test_the_wider_of_two_compared_layers_stays(first: int, second: int, pruned: str) -> None:
    """The other one can then never be as wide. The head lays channels out over pixels: its inputs are wider."""
    head = [nn.Flatten(), nn.Linear(25 * second, 5)]
    net = nn.Sequential(nn.Conv2d(3, first, 1), _BesideItsInput(first, second), *head).eval()

    assert {group.id for group in trace(net, torch.zeros(1, 3, 5, 5)).prunable} == {pruned}


def test_a_layer_compared_with_a_single_channel_stays() -> None:
    """A lone channel has no label, and is no group to cut, but it can be compared with."""
    net = nn.Sequential(nn.Conv2d(3, 7, 1), _BesideItsInput(7, 1), nn.Conv2d(1, 5, 1)).eval()

    assert {group.id for group in trace(net, torch.zeros(1, 3, 5, 5)).prunable if group.size > 1} == set()


def test_a_layer_compared_with_the_input_stays() -> None:
    net = nn.Sequential(_BesideItsInput(3, 7), nn.ReLU(), nn.Conv2d(7, 5, 1), nn.Conv2d(5, 4, 1)).eval()

    assert {group.id for group in trace(net, torch.zeros(1, 3, 5, 5)).prunable} == {"2"}


class _NarrowBeside(nn.Module):
    """The narrowest layer takes no part in the comparison: cut to its width, the two that do fail only together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.narrow, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(13, 5, 1)
        self.shortcut = _BesideItsInput(4, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([self.shortcut(x), self.narrow(x)], 1))


def test_the_wider_stays_too_where_both_are_cut_to_the_width_of_a_third() -> None:
    graph = trace(_NarrowBeside().eval(), torch.zeros(1, 3, 5, 5))

    assert {group.id for group in graph.prunable} == {"stem", "narrow"}
