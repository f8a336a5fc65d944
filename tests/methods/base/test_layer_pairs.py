"""Which layers make a pair, and what lies between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import NETS, image, randomised
from readers import TwoReaders, depthwise_between
from torch import Tensor

from autoprune.engine.tracing.trace import trace
from autoprune.methods.base.layer_pairs import find_pairs

PAIRS = {
    "Chain": {"first.0", "second.0"},
    "Residual": {"a1.0", "b1.0"},
    "Concat": set(),
    "Depthwise": {"project.0", "reduce"},
    "Grouped": {"after.0"},
    "Shuffle": {"after.0"},
    "Shared": {"up"},
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_layers_that_one_makes_and_others_read_behind_channel_wise_operations(name: str) -> None:
    net = randomised(NETS[name]())

    assert {one.group.id for one in find_pairs(net, trace(net, image()), on_image)} == PAIRS[name]


def on_image(model: Any) -> Any:
    return model(image())


def test_what_lies_between_includes_depthwise_convolutions() -> None:
    net = randomised(depthwise_between())
    found = find_pairs(net, trace(net, image()), on_image)

    assert [(one.maker, [r.path for r in one.readers]) for one in found] == [("0", ["6"])]
    assert set(found[0].trained) == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_readers_that_see_different_things_are_in_no_pair() -> None:
    class Apart(TwoReaders):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(x)
            return self.a(x).flatten(1), self.b(torch.tanh(x)).flatten(1)

    apart, together = randomised(Apart()), randomised(TwoReaders())

    assert find_pairs(apart, trace(apart, image()), on_image) == ()
    assert len(find_pairs(together, trace(together, image()), on_image)) == 1
