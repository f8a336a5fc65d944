"""The optimiser's step and its learning rate, by hand."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from autoprune.recipe import Training
from autoprune.training.fit import fit, learning_rate
from autoprune.training.runtime import Runtime


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [0.8, 0.8, 0.8, 0.8]),
        ("linear", 0.0, [0.8, 0.6, 0.4, 0.2]),
        ("cosine", 0.0, [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5))]),
        ("linear", 0.5, [0.4, 0.8, 0.8, 0.4]),
        ("cosine", 0.25, [0.8, 0.8, 0.6, 0.2]),
    ],
)
def test_learning_rate_by_hand(schedule, warmup, expected):
    training = Training(lr=0.8, schedule=schedule, warmup=warmup)

    assert pytest.approx(expected) == [learning_rate(training, step, 4) for step in range(4)]


def test_one_step_of_nesterov_by_hand(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    start = copy.deepcopy(model)
    training = Training(batch_size=1197, lr=0.1, momentum=0.9, weight_decay=0.01, schedule="constant")
    still = dataclasses.replace(digits, train=dataclasses.replace(digits.train, pixels=digits.validation.pixels))

    fit(model, still, training, Runtime(), images=1197, seed=0)

    inputs, labels = next(still.train.batches(torch.arange(1197), 1197))
    digits.loss(start, (inputs, labels)).value.backward()
    weight = start[1].weight
    decayed = weight.grad + 0.01 * weight.data
    expected = weight.data - 0.1 * (decayed + 0.9 * decayed)
    torch.testing.assert_close(model[1].weight.data, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture
def one_step(digits):
    """Weights of a linear layer, before and after one step on all training images, and its gradients at the start."""
    still = dataclasses.replace(digits, train=dataclasses.replace(digits.train, pixels=digits.validation.pixels))
    batch = next(still.train.batches(torch.arange(1197), 1197))

    def take(**training):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        start = copy.deepcopy(model)
        plain = Training(**{"batch_size": 1197, "lr": 0.1, "schedule": "constant", **training})
        fit(model, still, plain, Runtime(), images=1197, seed=0)
        digits.loss(start, batch).value.backward()
        return start[1], model[1]

    return take


@pytest.mark.parametrize(("decay_all", "held"), [(None, False), (False, False), (True, True)])
def test_one_step_of_adamw_by_hand(one_step, decay_all, held):
    start, after = one_step(optimizer="adamw", weight_decay=0.3, decay_all=decay_all)

    # the first step of Adam is lr in the direction of the gradient's sign; decay shrinks weights by lr * decay first
    for name, decay in (("weight", 0.3), ("bias", 0.3 * held)):
        before, gradient = getattr(start, name).data, getattr(start, name).grad
        sure = gradient.abs() > 1e-5
        expected = before * (1 - 0.1 * decay) - 0.1 * gradient.sign()
        torch.testing.assert_close(getattr(after, name).data[sure], expected[sure], rtol=1e-3, atol=1e-4)


def test_one_step_of_adam_adds_the_decay_to_the_gradient(one_step):
    start, after = one_step(optimizer="adam", weight_decay=70.0, decay_all=False)
    decayed = start.weight.grad + 70.0 * start.weight.data
    sure = decayed.abs() > 1e-3

    expected = start.weight.data - 0.1 * decayed.sign()
    torch.testing.assert_close(after.weight.data[sure], expected[sure], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after.bias.data, start.bias.data - 0.1 * start.bias.grad.sign(), rtol=1e-3, atol=1e-4)


def test_sgd_spares_norms_and_biases_where_asked(one_step):
    start, after = one_step(weight_decay=0.3, momentum=0.0, decay_all=False)

    for name, decay in (("weight", 0.3), ("bias", 0.0)):
        before, gradient = getattr(start, name).data, getattr(start, name).grad
        expected = before - 0.1 * (gradient + decay * before)
        torch.testing.assert_close(getattr(after, name).data, expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_a_norm(one_step):
    start, after = one_step(weight_decay=0.0, momentum=0.0, clip=0.01)
    steps = [getattr(after, name).data - getattr(start, name).data for name in ("weight", "bias")]
    norm = math.sqrt(sum(step.square().sum().item() for step in steps))
    direction = steps[0] / steps[0].norm() + start.weight.grad / start.weight.grad.norm()

    assert pytest.approx(0.1 * 0.01, rel=1e-3) == norm
    assert direction.norm() < 1e-3
