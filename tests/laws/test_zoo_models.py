"""The engine on the models that ship with the package: nothing unexpected is frozen, laws hold, targets are met."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import randomised
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.recipe import Target
from autoprune.tasks import zoo

SHAPES = {"digits_net": (1, 8, 8), "lenet5": (1, 28, 28)}


@pytest.fixture(scope="module", params=zoo.names())
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module, torch.Tensor]:
    shape = SHAPES.get(request.param, (3, 32, 32))
    model = randomised(zoo.build(request.param, shape, 10, {}, "test"))
    return request.param, model, torch.randn(2, *shape, generator=torch.Generator().manual_seed(5))


def test_only_the_logits_are_frozen(case: tuple[str, nn.Module, torch.Tensor]) -> None:
    _, model, images = case

    assert ["reaches the model's output"] == [group.frozen for group in trace(model, images).groups if group.frozen]


def test_half_the_flops_masked_equals_cut_and_torch_counts_the_same(case: tuple[str, nn.Module, torch.Tensor]) -> None:
    _, model, images = case
    graph = trace(model, images)
    scores = {group.id: np.random.default_rng(7).random(group.size) for group in graph.prunable}
    keep = allocate(graph, scores, Target(flops=0.5))
    cut = prune(model, graph, keep, fold=False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        expected = cut(images)
    with torch.no_grad():
        masked = mask(model, graph, keep)(images)

    assert counter.get_total_flops() == cost(graph, keep).flops
    assert cost(graph, keep).ratios(cost(graph, Keep.all()))["flops"] == pytest.approx(0.5, abs=0.01)
    torch.testing.assert_close(masked, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_stream_of_a_cifar_resnet_is_pruned_with_its_padded_shortcuts() -> None:
    graph = trace(zoo.build("resnet20", (3, 32, 32), 10, {}, "test"), torch.randn(1, 3, 32, 32))
    sizes = {group.id: group.size for group in graph.prunable}

    # 16 channels run through all three stages; 8 before and 8 behind join in the second, 16 and 16 in the third
    assert sizes["conv1"] == 16
    assert (sizes["layer2.0.conv2"], sizes["layer2.0.conv2#2"]) == (8, 8)
    assert (sizes["layer3.0.conv2"], sizes["layer3.0.conv2#2"]) == (16, 16)
    assert "layer3.2.conv2" in graph.by_id["conv1"].layers
