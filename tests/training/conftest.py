"""A real task and a network that is small enough for it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.tasks import load_task


@pytest.fixture(scope="module")
def digits():
    return load_task({"data": {"name": "digits", "augment": ["crop"]}, "model": {"name": "digits_net"}})


class Small(nn.Module):
    """Few odd channels, and dropout, so that the random state matters."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.drop, self.linear = nn.Dropout(0.2), nn.Linear(7 * 64, 10)

    def forward(self, x):
        return self.linear(self.drop(F.relu(self.norm(self.conv(x))).flatten(1)))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small().eval()
