"""What a model is measured to be, and its batch-norm statistics measured anew."""

import torch
from torch import nn
from torch.nn import functional as F

from autoprune.training import seeds
from autoprune.training.evaluate import evaluate, recalibrate
from autoprune.training.runtime import Runtime

CPU = Runtime(channels_last=True)


class Constant(nn.Module):
    """Answers the same class for every image, and remembers the mode it ran in."""

    def forward(self, x):
        self.mode = self.training
        return F.one_hot(torch.full((len(x),), 3), 10).float()


def test_evaluate_is_the_share_of_right_answers(digits):
    model = Constant().train()
    expected = (digits.test.labels == 3).double().mean().item()

    assert expected == evaluate(model, digits.test, digits, CPU)
    assert not model.mode
    assert model.training


def test_recalibrate_takes_the_mean_over_the_batches(digits):
    norm = nn.BatchNorm2d(1, momentum=0.3)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 10)).train()
    weight = model[2].weight.clone()

    recalibrate(model, digits, CPU, images=700, seed=5)

    order = torch.randperm(1197, generator=seeds.random_stream(5, 0))[:512]
    batches = [inputs for inputs, _ in digits.train.batches(order, 256, seed=5)]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean() for x in batches]).mean().reshape(1))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var() for x in batches]).mean().reshape(1))
    assert 0.3 == norm.momentum
    assert not norm.training
    assert not model.training
    assert torch.equal(weight, model[2].weight)


def test_recalibrate_leaves_dropout_off_and_networks_without_norms_alone(digits):
    class Probe(nn.Dropout):
        def forward(self, x):
            self.ran_training = self.training
            return x

    model = nn.Sequential(Probe(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)).train()
    recalibrate(model, digits, CPU, images=256, seed=0)
    plain = nn.Linear(64, 10).train()
    recalibrate(plain, digits, CPU, images=256, seed=0)

    assert not model[0].ran_training
    assert not plain.training
