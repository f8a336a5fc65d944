"""Groups, stages and reasons, from labels that met."""

from __future__ import annotations

from nets import image
from torch import nn

from autoprune.engine.tracing.trace import trace


def test_stages_count_resolutions_from_the_highest() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, 1, 1), nn.Conv2d(5, 7, 3, 2, 1), nn.Conv2d(7, 11, 1), nn.Conv2d(11, 2, 1))
    graph = trace(net, image(8))

    assert {"0": 0, "1": 1, "2": 1} == {group.id: group.stage for group in graph.prunable}
