"""What becomes of slices of channels leaves no trace in labels: they have to hold the same channels after a cut."""

from __future__ import annotations

import pytest
import torch
from cuts import frozen, lawful_graph, prunable
from nets import Between, image, randomised
from torch import Tensor


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


def every_other(y: Tensor) -> Tensor:
    return torch.cat([y[:, ::2].relu(), y[:, 1::2].tanh()], 1)


def less_the_second(y: Tensor) -> Tensor:
    return y - y[:, 1:2]


@pytest.mark.parametrize("between", [shifted, halved, split, every_other, less_the_second])
def test_parts_of_the_channels_with_computed_bounds_are_not_moved_by_a_cut(between) -> None:  # type: ignore[no-untyped-def]
    graph = lawful_graph(randomised(Between(between)), image(5, 3), seeds=8)

    assert prunable(graph) == {}
    assert "the model's code" in frozen(graph)["a"]


def test_slices_that_are_put_together_again_are_left_alone() -> None:
    graph = lawful_graph(randomised(Between(lambda y: torch.cat([y[:, : y.shape[1]], y], 1)[:, : y.shape[1]])), image())

    assert prunable(graph) == {"a": 7}
