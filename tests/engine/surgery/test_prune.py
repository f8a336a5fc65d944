"""The cut refuses what does not fit, and touches nothing but its copy."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import NETS, image, randomised

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError


def test_a_model_that_was_not_traced_is_refused() -> None:
    graph = trace(NETS["Chain"](), image())
    other = NETS["Chain"](a=9)

    with pytest.raises(InputError, match=r"first.0.weight: .*not the one that was traced.*size 7 along dimension 0"):
        prune(other, graph, Keep.all())


@pytest.mark.parametrize("name", sorted(NETS))
def test_surgery_leaves_the_model_it_was_given_alone(name: str) -> None:
    net = randomised(NETS[name]())
    graph = trace(net, image())
    before = copy.deepcopy(net.state_dict())
    cut = prune(net, graph, Keep.of({group.id: range(1, group.size) for group in graph.prunable}))
    with torch.no_grad():
        for parameter in cut.parameters():
            parameter.fill_(7.0)

    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
