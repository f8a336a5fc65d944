"""Numbers that a model's code computes from its widths are taken back by surgery."""

from __future__ import annotations

import torch
from nets import image, randomised
from torch import Tensor, nn

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


class ScaledTwice(nn.Module):
    """Two layers whose outputs are scaled by a power of their own width; a slice makes the tracer try several cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, width, 1) for width in (3, 5, 3, 5, 7))
        self.head = nn.Linear(23, 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = [(y := layer(x)) * y.shape[1] ** -0.5 for layer in self.layers]
        return self.head(torch.cat(parts, 1)[:, :23].mean((2, 3)))


def test_every_number_that_follows_a_width_is_taken_back() -> None:
    net = randomised(ScaledTwice())
    graph = trace(net, image())

    assert {f"layers.{i}.{name}" for i in range(5) for name in ("weight", "bias")} == {s.tensor for s in graph.scales}
    for group in graph.prunable:
        keep = Keep.of({group.id: [0]})
        with torch.no_grad():
            torch.testing.assert_close(
                mask(net, graph, keep)(image()), prune(net, graph, keep, fold=False)(image()), rtol=1e-4, atol=1e-5
            )


class TwoChannelsBeforeALinearLayer(nn.Module):
    """With one channel left, torch's linear layer lays its input out anew, and no longer adds the bias by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.head = nn.Conv2d(3, 2, 1), nn.Linear(2, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2))
        return self.head(3 + 2 * (x + 1))


def test_numbers_are_compared_call_by_call_whatever_layers_do_inside() -> None:
    frozen = [group.frozen for group in trace(TwoChannelsBeforeALinearLayer().eval(), image()).groups]

    assert frozen == [None, None, "reaches the model's output"]
