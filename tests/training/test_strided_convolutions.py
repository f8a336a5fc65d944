"""Strided 1x1 convolutions of few channels: the same values and gradients, by a stride of 1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoprune import methods
from autoprune.recipe import MethodChoice, Training
from autoprune.tasks.checks import check_task
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime
from autoprune.training.strided_convolutions import SafeStrides
from autoprune.trial.shared import SharedState

CHANNELS_LAST = Runtime(channels_last=True)


class Seen(TorchFunctionMode):
    """Notes the stride of every 1x1 convolution that torch really computes; `only` those with gradients, if set."""

    def __init__(self, *, only: bool) -> None:
        super().__init__()
        self.only = only
        self.strides: list[Any] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(zip(("input", "weight", "bias", "stride"), args, strict=False)) | (kwargs or {})
        if (
            func is F.conv2d
            and (torch.is_grad_enabled() or not self.only)
            and tuple(given["weight"].shape[2:]) == (1, 1)
        ):
            self.strides.append(given.get("stride", 1))
        return func(*args, **(kwargs or {}))


def strides_of(act: Callable[[], Any], *, only: bool = False) -> list[Any]:
    with Seen(only=only) as seen:
        act()
    return seen.strides


def safe_strides_of(layer: nn.Module) -> list[Any]:
    def act() -> None:
        with SafeStrides():
            layer(torch.randn(2, layer.in_channels, 8, 8, dtype=layer.weight.dtype))

    return strides_of(act)


def values_and_gradients(layer: nn.Conv2d, x: Tensor) -> list[Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    (y * torch.arange(y.numel(), dtype=y.dtype).view_as(y).sin()).sum().backward()
    assert x.grad is not None
    assert x.grad.stride() == x.stride()
    return [y.detach(), x.grad, *(weights.grad for weights in layer.parameters() if weights.grad is not None)]


@pytest.mark.parametrize("stride", [2, (3, 1), (1, 2)])
@pytest.mark.parametrize(("channels", "groups", "bias"), [(5, 1, True), (1, 1, False), (15, 1, True), (9, 3, False)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_values_and_gradients_are_the_same(stride: Any, channels: int, groups: int, bias: bool, layout: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 6, 1, stride, groups=groups, bias=bias).double()  # which oneDNN does not compute
    layer = layer.to(memory_format=layout)
    x = torch.randn(3, channels, 7, 9, dtype=torch.float64).to(memory_format=layout)
    twin = copy.deepcopy(layer)

    expected = values_and_gradients(layer, x)
    assert safe_strides_of(twin) == [1]
    with SafeStrides():
        found = values_and_gradients(twin, x)

    assert len(found) == len(expected) == 3 + bias
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 6, 1, 2),
        nn.Conv2d(5, 6, 1, 2, padding=1),
        nn.Conv2d(5, 6, 1, 2).requires_grad_(False),
    ],
)
def test_layers_that_are_not_at_risk_are_left_alone(layer: nn.Conv2d) -> None:
    assert safe_strides_of(layer) == [(2, 2)]


def test_without_gradients_nothing_changes() -> None:
    with torch.no_grad():
        assert safe_strides_of(nn.Conv2d(5, 6, 1, 2)) == [(2, 2)]


class Shortcut(nn.Module):
    """A residual block whose shortcut reads five channels at a stride of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(5, 7, 3, 2, padding=1, bias=False), nn.BatchNorm2d(7), nn.ReLU())
        self.last = nn.Conv2d(7, 12, 3, padding=1)
        self.shortcut = nn.Conv2d(5, 12, 1, 2, bias=False)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(F.relu(self.last(self.block(x)) + self.shortcut(x)).mean((2, 3)))


def test_trainings_on_the_cpu_read_so(digits: Any) -> None:
    training = Training(images=64, batch_size=32, rungs=(1.0,))

    seen = strides_of(lambda: fit(Shortcut(), digits, training, CHANNELS_LAST, images=64, seed=0))

    assert len(seen) == 2
    assert all(stride == 1 for stride in seen)


@pytest.mark.parametrize("method", ["taylor", "group_fisher", "orthoreg"])
def test_scores_of_gradients_do_so(digits: Any, method: str) -> None:
    shared = SharedState.of(digits, CHANNELS_LAST, model=CHANNELS_LAST.place(Shortcut()))
    scored = methods.build(MethodChoice(name=method))

    seen = strides_of(lambda: shared.scores(scored, shared.context(shared.model, seed=0)), only=True)

    assert seen
    assert all(stride == 1 for stride in seen)


def test_the_step_by_which_a_task_is_checked_does_so(digits: Any) -> None:
    seen = strides_of(lambda: check_task(digits, CHANNELS_LAST.place(Shortcut())), only=True)

    assert seen
    assert all(stride == 1 for stride in seen)
