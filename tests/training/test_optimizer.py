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
