"""Masked models compute what cut models compute, where channels act on each other too."""

from __future__ import annotations

import pytest
import torch
from nets import Between, image, randomised
from torch.nn import functional as F

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


@pytest.mark.parametrize(
    "between",
    [
        lambda y: torch.softmax(y, 1),
        lambda y: y / y.norm(dim=1, keepdim=True),
        lambda y: y - y.mean(1, keepdim=True),
        lambda y: y * y.amax(1, keepdim=True),
        lambda y: F.group_norm(y, 1),
        lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (y.shape[1],)).permute(0, 3, 1, 2),
        F.instance_norm,
        lambda y: y / (1 + y.std((1, 2, 3), keepdim=True)),
    ],
)
def test_what_mixes_channels_sees_only_those_that_stay(between) -> None:
    net = randomised(Between(between))
    graph = trace(net, image())
    keep = Keep.of({"a": [0, 3, 4]})

    assert graph.by_id["a"].size == 7
    with torch.no_grad():
        torch.testing.assert_close(
            mask(net, graph, keep)(image()), prune(net, graph, keep, fold=False)(image()), rtol=1e-4, atol=1e-5
        )
