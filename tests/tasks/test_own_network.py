"""What a factory returns is a network, comes out of its wrappers, or is refused with what to return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.errors import ModelError
from autoprune.tasks.own_network import as_network


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda model: nn.DataParallel(torch.compile(model))])
def test_what_runs_a_network_is_no_part_of_it(wrap: Callable[[nn.Module], nn.Module]) -> None:
    inner = net()

    assert as_network(wrap(inner), "model") is inner


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types_become_float32(kind: torch.dtype) -> None:
    model = as_network(net().to(kind).train(), "model")

    assert {torch.float32} == {weight.dtype for weight in model.parameters()}
    assert torch.int64 == model[1].num_batches_tracked.dtype  # type: ignore[index]
    assert not model.training


def no_gradients() -> nn.Module:
    return net().requires_grad_(False)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"returns None; allowed: a torch\.nn\.Module: does the function end with `return`"),
        (nn.Flatten, r"returns the class Flatten; allowed: a torch\.nn\.Module, Flatten\(\) for instance"),
        (net().state_dict(), "returns a state dict; .* by `checkpoint`"),
        ([net()], r"returns a list; allowed: a torch\.nn\.Module$"),
        (net().to("meta"), "the weights are on the device meta"),
        (no_gradients(), r"no weight of the network requires a gradient; .*requires_grad_\(True\)"),
    ],
)
def test_what_is_no_network(found: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"^task.model: .*{message}"):
        as_network(found, "task.model")
