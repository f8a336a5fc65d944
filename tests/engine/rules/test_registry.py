"""Operations that torch does not know: a rule as their page registers it works; without one channels freeze, aloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import image, randomised
from pages import code_in
from torch import Tensor, nn

from autoprune.engine import rules
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace

PAGE = Path(__file__).resolve().parents[3] / "docs" / "custom-operations.md"


@pytest.fixture(scope="module")
def example() -> Iterator[dict[str, Any]]:
    """The names that the page's example defines; its rule is gone afterwards."""
    (code,) = code_in(PAGE, "python")
    known = dict(rules.RULES)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    yield names
    rules.RULES.clear()
    rules.RULES.update(known)


class Scaled(nn.Module):
    """Calls an operation with one factor per channel."""

    def __init__(self, operation: Any, factors: Tensor) -> None:
        super().__init__()
        self.operation = lambda x, scale: operation(x, scale)  # noqa: PLW0108 - copied with a model, as operations cannot
        self.scale = nn.Parameter(factors)

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x, self.scale)


def net(operation: Any, width: int = 11) -> nn.Module:
    """A convolution of that width, the operation, a ReLU, and another convolution."""
    scaled = Scaled(operation, torch.linspace(0.5, 2, width))
    return nn.Sequential(
        randomised(nn.Conv2d(3, width, 3)), scaled, nn.ReLU(), randomised(nn.Conv2d(width, 5, 1), seed=1)
    ).eval()


def test_the_registered_rule_couples_the_layer_and_the_cut_model_computes_the_same(example: dict[str, Any]) -> None:
    model = net(example["scale_channels"])
    graph = trace(model, image())
    keep = Keep.of({"0": [0, 3, 4, 8, 10]})

    assert graph.by_id["0"].layers == ("0", "1", "3")
    small = prune(model, graph, keep, fold=False)
    assert small[1].scale.tolist() == pytest.approx([0.5, 0.95, 1.1, 1.7, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(small(image()), mask(model, graph, keep)(image()))


def test_the_registered_rule_freezes_what_meets_something_else(example: dict[str, Any]) -> None:
    class Elsewhere(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return self.operation(x, torch.linspace(0.5, 2, 11, device=x.device))

    model = net(example["scale_channels"])
    model[1] = Elsewhere(example["scale_channels"], torch.ones(11))

    (group,) = [group for group in trace(model, image()).groups if group.id == "0"]
    assert group.frozen == "scaled by a tensor of fixed size in 1"


def test_without_a_rule_the_channels_stay_and_the_graph_says_why() -> None:
    @torch.library.custom_op("autoprune_tests::unruled", mutates_args=())
    def unruled(x: Tensor, scale: Tensor) -> Tensor:
        return x * scale[:, None, None]

    @unruled.register_fake
    def _(x: Tensor, _scale: Tensor) -> Tensor:
        return torch.empty_like(x)

    graph = trace(net(unruled), image())

    (group,) = [group for group in graph.groups if group.id == "0"]
    assert group.frozen == "no rule for operation 'autoprune_tests::unruled' in 1"
    assert "0" not in graph.by_id


def test_what_is_wrapped_in_an_autograd_function_needs_no_rule() -> None:
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(_context: Any, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale[:, None, None]

    assert trace(net(Scale.apply), image()).by_id["0"].layers == ("0", "1", "3")


def test_an_operation_tagged_pointwise_needs_no_rule() -> None:
    torch.library.define("autoprune_tests::twice", "(Tensor x) -> Tensor", tags=(torch.Tag.pointwise,))
    torch.library.register_fake("autoprune_tests::twice", torch.empty_like)

    model = net(lambda x, _scale: torch.ops.autoprune_tests.twice(x))

    assert "0" in trace(model, image()).by_id
