"""What removed channels still emitted goes where it is exact, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from nets import Shared, image, randomised
from torch import nn

from autoprune.engine.keep import Keep
from autoprune.engine.shrunk_graph import shrink
from autoprune.engine.surgery.masking import mask, silence
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


def test_a_layer_used_twice_with_different_constants_is_cut_without_folding() -> None:
    net = randomised(Shared())
    graph = trace(net, image())
    keep = Keep.of({"stem.0": range(1, 11)})
    with torch.no_grad():
        assert torch.equal(net.shared.bias[1:], prune(net, graph, keep).shared.bias)


def test_a_constant_goes_into_the_bias_or_where_there_is_none_off_the_running_mean_behind() -> None:
    layers = [nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 11, 1, bias=False), nn.BatchNorm2d(11)]
    net = randomised(nn.Sequential(*layers, nn.Conv2d(11, 5, 1)))
    graph = trace(net, image())
    keep = Keep.of({"0": range(2, 7), "3": range(3, 11)})
    cut = prune(net, graph, keep)

    assert cut[3].bias is None
    assert not torch.equal(cut[4].running_mean, net[4].running_mean[3:])
    assert not torch.equal(cut[5].bias, net[5].bias)  # the batch norm's shift shows through
    with torch.no_grad():
        torch.testing.assert_close(cut(image()), silence(net, graph, keep)(image()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_bias_that_a_cut_added_is_cut_with_its_filters_by_the_next(transposed: bool) -> None:
    middle = nn.ConvTranspose2d(8, 12, 1, bias=False, groups=2) if transposed else nn.Conv2d(8, 12, 1, bias=False)
    layers = [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), middle, nn.ReLU(), nn.Conv2d(12, 5, 1)]
    net = randomised(nn.Sequential(*layers))
    graph = trace(net, image())
    first = Keep.of({graph.prunable[0].id: range(graph.prunable[0].size // 2, graph.prunable[0].size)})
    once, left = prune(net, graph, first), shrink(graph, first)
    assert once[3].bias is not None

    second = Keep.of({graph.prunable[1].id: range(2, graph.prunable[1].size)})
    twice = prune(once, left, second)

    assert len(twice[3].bias) == twice[3].out_channels < 12
    with torch.no_grad():
        torch.testing.assert_close(twice(image()), silence(once, left, second)(image()), rtol=1e-4, atol=1e-5)
        masked, cut = mask(once, left, second), prune(once, left, second, fold=False)
        torch.testing.assert_close(cut(image()), masked(image()), rtol=1e-4, atol=1e-5)
