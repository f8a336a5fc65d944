"""Networks that are handed over as objects."""

import pytest
import torch
from torch import nn
from user_tasks import Net

from autoprune.errors import InputError, ModelError
from autoprune.tasks.own.networks import Given, check_source


def test_a_network_is_copied_and_its_weights_are_drawn_anew_when_it_is_built():
    net = Net().train()
    given = Given(net)
    trained, built, again, other = given.trained(None, list), given.build(3), given.build(3), given.build(4)

    assert torch.equal(net.conv1.weight, trained.conv1.weight)
    assert net.conv1.weight.data_ptr() != trained.conv1.weight.data_ptr()
    assert torch.equal(built.conv1.weight, again.conv1.weight)
    assert not torch.equal(built.conv1.weight, net.conv1.weight)
    assert not torch.equal(built.conv1.weight, other.conv1.weight)
    assert net.training
    assert not trained.training
    assert not built.training


def test_a_function_builds_it_each_time():
    given = Given(Net)

    assert torch.equal(given.build(0).conv1.weight, given.trained(None, list).conv1.weight)
    assert not torch.equal(given.build(0).conv1.weight, given.build(1).conv1.weight)


def test_functions_that_fail_or_build_something_else():
    with pytest.raises(ModelError, match="building it failed: ZeroDivisionError"):
        Given(lambda: 1 / 0).build(0)
    with pytest.raises(ModelError, match="the factory returns a str"):
        Given(lambda: "net").build(0)
    with pytest.raises(InputError, match="a str is no model"):
        check_source("net", "model")
    assert isinstance(check_source(nn.ReLU(), "model"), nn.ReLU)
