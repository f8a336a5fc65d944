"""Whatever a model returns is read by someone, wherever in the output it is."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nets import image
from torch import Tensor, nn

from autoprune.engine.tracing.outputs import output_tensors
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ModelError


@dataclass
class Prediction:
    logits: Tensor
    maps: list[Tensor]


class Slotted:
    __slots__ = ("logits", "parent")

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.parent = logits, self


class Wrapped(dict):  # type: ignore[type-arg]
    """A dictionary that torch's trees do not know."""


class Returning(nn.Module):
    """Features and logits go into whatever `into` makes of them."""

    def __init__(self, into: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 11, 1), nn.Conv2d(11, 5, 1)
        self.into = into

    def forward(self, x: Tensor) -> Any:
        features = self.b(self.a(x))
        return self.into(features, self.c(features))


INTO: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dataclass": lambda f, y: Prediction(y, [f]),
    "object": lambda f, y: SimpleNamespace(logits=y, inner=SimpleNamespace(maps=(f,))),
    "slots": lambda f, y: [Slotted(y), f],
    "own dictionary": lambda f, y: Wrapped(logits=y, maps=[f]),
    "user dictionary": lambda f, y: UserDict(logits=y, maps={"last": f}),
    "distribution": lambda f, y: torch.distributions.Normal(y, y.exp(), validate_args=False),
    "set": lambda f, y: {y, f},
}


@pytest.mark.parametrize("name", INTO)
def test_classes_are_frozen_wherever_the_output_has_them(name: str) -> None:
    graph = trace(Returning(INTO[name]), image())

    frozen = {group.id for group in graph.groups if group.frozen == "reaches the model's output"}
    assert frozen == ({"c"} if name == "distribution" else {"b", "c"})
    assert "a" in graph.by_id


def test_modules_in_an_output_are_no_output() -> None:
    net = nn.Linear(3, 5)
    tensor = torch.ones(2)

    assert [tensor] == output_tensors(SimpleNamespace(logits=tensor, model=net))


def test_an_output_without_tensors_is_refused() -> None:
    with pytest.raises(ModelError, match="no tensor found in what forward returns, list; allowed: tensors, in lists"):
        trace(Returning(lambda f, y: [f.shape, "logits"]), image())
