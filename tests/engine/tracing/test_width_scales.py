"""Numbers that a model's code computes from its widths are taken back by surgery."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cuts import frozen, lawful_graph, prunable
from nets import image, randomised
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

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


Gain = Callable[[Tensor, Tensor], float]


class Equalised(nn.Module):
    """A convolution whose weight is multiplied as its inputs are many (StyleGAN, ProGAN)."""

    def __init__(self, inputs: int, filters: int, gain: Gain) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(filters, inputs, 1, 1)), nn.Parameter(torch.randn(filters))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain(self.weight, x), self.bias)


class EqualisedOutput(Equalised):
    """The same by what comes out."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight) * self.gain(self.weight, x) + self.bias[:, None, None]


@pytest.mark.parametrize("layer", [Equalised, EqualisedOutput])
@pytest.mark.parametrize(
    "gain",
    [
        lambda weight, _x: (2 / weight[0].numel()) ** 0.5,
        lambda weight, _x: weight.shape[1] ** -0.5,
        lambda _weight, x: 1 / x.shape[1],
        lambda weight, _x: torch.tensor(weight[0].numel()).rsqrt(),
    ],
)
def test_gains_that_follow_the_inputs_are_taken_back_in_the_weight(layer: type[Equalised], gain: Gain) -> None:
    net = nn.Sequential(layer(3, 11, gain), nn.ReLU(), layer(11, 13, gain), nn.ReLU(), layer(13, 5, gain))
    graph = lawful_graph(net, image())

    assert prunable(graph) == {"0": 11, "2": 13}
    assert {scale.tensor for scale in graph.scales} == {"2.weight", "4.weight"}


class Equalise(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * weight[0].numel() ** -0.5


def test_gains_in_a_parametrisation_are_taken_back_in_what_it_computes_from() -> None:
    net = nn.Sequential(nn.Conv2d(3, 11, 1), nn.ReLU(), nn.Conv2d(11, 13, 1), nn.ReLU(), nn.Conv2d(13, 5, 1))
    parametrize.register_parametrization(net[2], "weight", Equalise())
    graph = lawful_graph(net, image())

    assert prunable(graph) == {"0": 11, "2": 13}
    assert {scale.tensor for scale in graph.scales} == {"2.parametrizations.weight.original"}


def equalise(module: nn.Conv2d, _inputs: object) -> None:
    module.weight = module.weight_orig * module.weight_orig[0].numel() ** -0.5


def test_gains_in_a_hook_of_somebody_are_taken_back_and_sizes_follow() -> None:
    net = nn.Sequential(nn.Conv2d(3, 11, 1), nn.ReLU(), nn.Conv2d(11, 13, 1), nn.ReLU(), nn.Conv2d(13, 5, 1))
    net[2].weight_orig = nn.Parameter(net[2].weight.detach())
    del net[2].weight
    net[2].register_forward_pre_hook(equalise)
    graph = lawful_graph(net, image())
    cut = prune(net, graph, Keep.of({"0": [1, 4, 6], "2": [0, 2, 3, 9]}), fold=False)

    assert prunable(graph) == {"0": 11, "2": 13}
    assert (cut[2].in_channels, cut[2].out_channels) == (3, 4)


Scores = Callable[[Tensor, Tensor], Tensor]


class OneHead(nn.Module):
    """Attention of one head by hand."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(3, 11), nn.Linear(3, 11), nn.Linear(3, 7)
        self.out, self.scores = nn.Linear(7, 5), scores

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        weights = self.scores(self.query(tokens), self.key(tokens).transpose(1, 2)).softmax(-1)
        return self.out(weights @ self.value(tokens))


@pytest.mark.parametrize(
    "scores",
    [
        lambda query, key: query @ key / query.shape[-1] ** 0.5,
        lambda query, key: (query * query.shape[-1] ** -0.5) @ key,
        lambda query, key: query @ key / torch.tensor(query.shape[-1]).sqrt(),
        lambda query, key: torch.einsum("nic,ncj->nij", query, key) * query.shape[-1] ** -0.5,
    ],
)
def test_scaled_scores_keep_their_temperature_by_the_queries(scores: Scores) -> None:
    graph = lawful_graph(OneHead(scores), image())

    assert prunable(graph) == {"query": 11, "value": 7}
    assert {scale.tensor for scale in graph.scales} == {"query.weight", "query.bias"}


@pytest.mark.parametrize(
    "scores",
    [
        lambda query, key: query @ key / torch.tensor(query.shape[-1], device=query.device).sqrt(),
        lambda query, key: query @ key / query.new_tensor(query.shape[-1]).sqrt(),
        lambda query, key: query @ key / torch.full((), query.shape[-1] ** 0.5, device=query.device),
        lambda query, key: (query @ key).relu() / query.shape[-1] ** 0.5,
        lambda query, key: query @ key / query.shape[-1] ** 0.5 + query @ key,
    ],
)
def test_numbers_that_cannot_be_taken_back_hold_the_width_they_come_from(scores: Scores) -> None:
    graph = lawful_graph(OneHead(scores), image())

    assert prunable(graph) == {"value": 7}
    assert "the model's code computes with its width" in frozen(graph)["query"]


class ScaledMaps(nn.Module):
    """A linear layer's outputs are viewed into 7 maps of 2 x 3 pixels, which are scaled by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(5, 42), nn.Conv2d(7, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.linear(x).unflatten(1, (-1, 2, 3))
        return self.head(maps * maps.shape[1] ** -0.5)


def test_every_pixel_of_maps_is_scaled_back() -> None:
    net, inputs = randomised(ScaledMaps()), torch.randn(2, 5)
    graph = trace(net, inputs)
    keep = Keep.of({"linear": [1, 2, 6]})

    assert prunable(graph) == {"linear": 7}
    assert {scale.tensor: len(scale.entries) for scale in graph.scales} == {"linear.weight": 42, "linear.bias": 42}
    with torch.no_grad():
        torch.testing.assert_close(prune(net, graph, keep, fold=False)(inputs), mask(net, graph, keep)(inputs))
