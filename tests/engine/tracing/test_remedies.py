"""Slices whose bounds the code computes, and shortcuts that are padded: pruned where the code follows the widths."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from cuts import frozen, lawful_graph, prunable
from nets import Between, image, randomised
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.artifact import load, save
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


def shifted(y: Tensor) -> Tensor:
    """The first sevenths of the channels come from the images before and after (TSM)."""
    fold = y.shape[1] // 7
    out = torch.zeros_like(y)
    out[:-1, :fold] = y[1:, :fold]
    out[1:, fold : 2 * fold] = y[:-1, fold : 2 * fold]
    out[:, 2 * fold :] = y[:, 2 * fold :]
    return out


def halved(y: Tensor) -> Tensor:
    middle = y.shape[1] // 2
    return torch.cat([torch.relu(y[:, :middle]), y[:, middle:]], 1)


def split(y: Tensor) -> Tensor:
    first, second = torch.split(y, [y.shape[1] // 3, y.shape[1] - y.shape[1] // 3], 1)
    return torch.cat([first.tanh(), second], 1)


def sliced_twice(y: Tensor) -> Tensor:
    quarter = y.shape[1] // 4
    rest = y[:, quarter:]
    return torch.cat([y[:, :quarter].flip(3), rest[:, :quarter].tanh(), rest[:, quarter:]], 1)


def every_other(y: Tensor) -> Tensor:
    return torch.cat([y[:, ::2].relu(), y[:, 1::2].tanh()], 1)


@pytest.mark.parametrize(
    ("between", "width", "units"),
    [
        (shifted, 21, {"a": 3}),  # of one channel from before, one from after, and five
        (shifted, 25, {"a": 3, "a#2": 1}),  # 25 // 7 is 3 as well: of 19 channels behind, 18 go with them
        (halved, 22, {"a": 11}),
        (halved, 13, {"a": 6, "a#2": 1}),
        (split, 21, {"a": 7}),
        (split, 11, {"a": 3, "a#2": 2}),
        (sliced_twice, 12, {"a": 3}),
        (every_other, 14, {"a": 7}),
    ],
)
def test_slices_with_computed_bounds_lose_the_same_share(
    between: Callable[[Tensor], Tensor], width: int, units: dict[str, int]
) -> None:
    graph = lawful_graph(randomised(Between(between, width)), image(5, 3), seeds=8)

    assert prunable(graph) == units


@pytest.mark.parametrize(
    ("between", "behind"),
    [(lambda y: torch.cat([y[:, :4].tanh(), y[:, 4:]], 1), 7), (lambda y: y - y[:, 1:2], 9)],
)
def test_of_slices_with_fixed_bounds_the_channels_behind_them_are_pruned(
    between: Callable[[Tensor], Tensor], behind: int
) -> None:
    graph = lawful_graph(randomised(Between(between, 11)), image(), seeds=8)

    assert prunable(graph) == {"a#2": behind}
    assert "the model's code takes them by number" in frozen(graph)["a"]


class PadByAttribute(nn.Module):
    """One number, the width that comes out."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.out_channels = wide

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.out_channels - x.shape[1]))


class PadBothEnds(PadByAttribute):
    """As many in front as behind."""

    def forward(self, x: Tensor) -> Tensor:
        added = self.out_channels - x.shape[1]
        return F.pad(x, (0, 0, 0, 0, added // 2, added - added // 2))


class PadByAmounts(nn.Module):
    """All amounts in one attribute (HighResNet)."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.pad = (0, 0, 0, 0, 2, wide - narrow - 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pad)


class PadInAModule(nn.Module):
    """A module that pads what has been turned for it (iRevNet)."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 0, 0, wide - narrow))

    def forward(self, x: Tensor) -> Tensor:
        return self.pad(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)


def with_zeros(x: Tensor, planes: int) -> Tensor:
    return torch.cat([x.data, x.new_zeros(len(x), planes - x.shape[1], *x.shape[2:])], 1)


class PadByPartial(nn.Module):
    """The width is an argument of a partial function (MONAI's ResNets)."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.stride = wide - narrow  # no number of channels, whatever its value
        self.downsample = partial(with_zeros, planes=wide)

    def forward(self, x: Tensor) -> Tensor:
        assert self.stride == 6
        return self.downsample(x)


class PadInCode(nn.Module):
    """Nobody can reach the number."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.pad = lambda x: F.pad(x, (0, 0, 0, 0, 0, wide - narrow))

    def forward(self, x: Tensor) -> Tensor:
        return self.pad(x)


class Widened(nn.Module):
    """A shortcut of 7 channels, padded to the 13 of what it is added to."""

    def __init__(self, shortcut: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.stem, self.shortcut = nn.Conv2d(3, 7, 1), shortcut(7, 13)
        self.a, self.b, self.head = nn.Conv2d(7, 11, 1), nn.Conv2d(11, 13, 1), nn.Conv2d(13, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((self.shortcut(x) + self.b(self.a(x).relu())).relu())


@pytest.mark.parametrize(
    ("shortcut", "padded"),
    [(PadByAttribute, 6), (PadBothEnds, 3), (PadByAmounts, 6), (PadInAModule, 6), (PadByPartial, 6)],
)
def test_padded_shortcuts_follow_the_numbers_that_modules_hold(
    shortcut: Callable[[int, int], nn.Module], padded: int
) -> None:
    graph = lawful_graph(randomised(Widened(shortcut)), image(), seeds=6)

    assert sorted(prunable(graph).values()) == sorted([7, 11, padded])
    assert set(frozen(graph)) == {"head"}


def test_padding_by_a_number_out_of_reach_freezes_only_what_meets_it() -> None:
    graph = lawful_graph(randomised(Widened(PadInCode)), image())

    assert prunable(graph) == {"stem": 7, "a": 11}
    assert frozen(graph)["b"] == "meets padding, and the model's code fixes how much of it there is"


def test_a_width_in_a_partial_function_is_saved_and_loaded(tmp_path) -> None:  # type: ignore[no-untyped-def]
    net = randomised(Widened(PadByPartial)).eval()
    graph = trace(net, image())
    keep = Keep.of({group.id: range(0, group.size, 2) for group in graph.prunable})
    cut = prune(net, graph, keep)
    again = load(save(tmp_path / "cut", cut, graph, keep), lambda: Widened(PadByPartial))

    assert again.shortcut.downsample.keywords["planes"] == 7
    torch.testing.assert_close(again(image()), cut(image()))


class Decoder(nn.Module):
    """A linear layer whose outputs become 3 x 5 maps that nothing but their means is read of."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(3, 7 * 15), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.linear(x.mean((2, 3))).view(len(x), -1, 3, 5).mean((2, 3)))


def test_what_fails_split_as_heads_is_split_as_maps() -> None:
    graph = lawful_graph(Decoder(), image())

    assert prunable(graph) == {"linear": 7}
