"""What is learnt from a teacher, and that it computes its outputs once."""

import copy
import math

import pytest
import torch

from autoprune.recipe import Training
from autoprune.training import distillation
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime

CPU = Runtime(channels_last=True)


def test_distillation_by_hand():
    outputs, taught = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])

    # at T = 2 the teacher says (3/4, 1/4) and the student (1/2, 1/2)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert pytest.approx(expected, abs=1e-6) == distillation.distillation(outputs, taught, 2.0).item()


def test_distillation_of_an_agreeing_teacher_is_nothing():
    outputs = torch.randn(5, 7)

    assert pytest.approx(0, abs=1e-6) == distillation.distillation(outputs, outputs + 3, 4.0).item()


class Counting(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x):
        self.calls += 1
        return self.model(x)


def test_a_teacher_answers_a_batch_once_and_the_training_is_the_same(digits, small):
    training, counting = Training(batch_size=100, lr=0.05, distill=0.5), Counting(digits.build())
    teacher, models = distillation.Teacher(counting), [copy.deepcopy(small) for _ in range(4)]
    forgetful = distillation.Teacher(digits.build(), memory=0)

    for model, asked in zip(models, (teacher, teacher, forgetful), strict=False):
        fit(model, digits, training, CPU, images=700, seed=3, teacher=asked)
    assert counting.calls == 7
    fit(models[3], digits, training, CPU, images=700, seed=4, teacher=teacher)

    assert counting.calls == 14  # another seed sees other batches
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[name]), name
        assert torch.equal(tensor, models[2].state_dict()[name]), name
