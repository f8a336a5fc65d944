"""The U-Net: images of any size, and every width but the last layer's can be pruned."""

from __future__ import annotations

import pytest
import torch

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ModelError
from autoprune.tasks.segmentation.unet import UNet


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 22), (7, 5)])
def test_a_pixel_has_its_logits_whatever_the_size(height: int, width: int) -> None:
    net = UNet(3, 5, widths=(7, 11, 13)).eval()

    assert net(torch.rand(2, 3, height, width)).shape == (2, 5, height, width)


def test_convolutions_have_the_widths_they_should() -> None:
    net = UNet(3, 5, widths=(7, 11, 13))
    shapes = [tuple(p.shape[:2]) for p in net.parameters() if p.dim() == 4]

    down = [(7, 3), (7, 7), (11, 7), (11, 11), (13, 11), (13, 13)]
    up = [(7, 11 + 7), (7, 7), (11, 13 + 11), (11, 11)]
    assert shapes == [*down, *up, (5, 7)]


def test_all_widths_but_the_classes_are_pruned_and_the_cut_model_is_the_same_code() -> None:
    net = UNet(3, 5, widths=(7, 11, 13)).eval()
    graph = trace(net, torch.rand(1, 3, 16, 16))
    keep = Keep.of({group.id: range(group.size - 1) for group in graph.prunable})

    cut = prune(net, graph, keep)

    assert sorted(group.size for group in graph.prunable) == [7, 7, 7, 7, 11, 11, 11, 11, 13, 13]
    assert cut(torch.rand(1, 3, 9, 9)).shape == (1, 5, 9, 9)
    # double convolutions of 6, 10 and 12 channels, 3x3, at 16x16, 8x8 and 4x4, and back
    macs = 9 * (256 * (3 * 6 + 6 * 6 + 16 * 6 + 6 * 6) + 64 * (6 * 10 + 10 * 10 + 22 * 10 + 10 * 10))
    macs += 9 * 16 * (10 * 12 + 12 * 12) + 256 * 6 * 5
    assert cost(graph, keep).flops == 2 * macs


@pytest.mark.parametrize("widths", [(), (8, 0)])
def test_widths_that_make_no_network_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="one width per size"):
        UNet(1, 2, widths)
