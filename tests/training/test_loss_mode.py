"""A network that returns its losses in training mode is asked for them; its layers compute as in eval mode."""

import torch
from torch import nn

from autoprune.training.loss_mode import asked_for_losses


class Detector(nn.Module):
    """Returns losses in training mode only, as torchvision's detectors do."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(7), nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Conv2d(7, 3, 1))

    def forward(self, x):
        outputs = self.head(self.drop(self.norm(x)))
        return {"loss": outputs.mean()} if self.training and self.head.training else [outputs]


def test_losses_are_those_of_eval_mode_and_statistics_stay():
    model, images = Detector().eval(), torch.randn(5, 7, 3, 3)
    before = model.norm.running_mean.clone()
    expected = model(images)[0].mean()

    with asked_for_losses(model):
        losses = model(images)

    assert torch.equal(expected, losses["loss"])
    assert torch.equal(before, model.norm.running_mean)
    assert not any(module.training for module in model.modules())


def test_modules_that_were_training_still_are_afterwards():
    model = Detector().eval()
    model.norm.train()
    model.head.train()

    with asked_for_losses(model):
        pass

    assert [False, True, False, True, True] == [module.training for module in model.modules()]
