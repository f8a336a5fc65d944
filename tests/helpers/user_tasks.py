"""What a user brings: small data sets, networks, losses and metrics; images of 7x7 pixels, five classes or values."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

CLASSES = 5


def images(count: int = 40, seed: int = 0) -> Tensor:
    """(count, 1, 7, 7) float32; a bright row says what is in it."""
    generator = torch.Generator().manual_seed(seed)
    found = 0.3 * torch.randn(count, 1, 7, 7, generator=generator)
    for number in range(count):
        found[number, 0, number % CLASSES] += 2
    return found


def classes(count: int = 40) -> Tensor:
    """(count,) int64: the bright row."""
    return torch.arange(count) % CLASSES


def several(count: int = 40) -> Tensor:
    """(count, 5) float32: the bright row, and the one below it, each 1."""
    bright = torch.eye(CLASSES)[classes(count)]
    return bright + bright.roll(1, 1)


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, outputs: int = CLASSES, width: int = 13) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, 11, 3, padding=1), nn.BatchNorm2d(11)
        self.linear = nn.Linear(11 * 7, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(N, 1, 7, 7) -> (N, 77): the mean of each row."""
        x = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(x))).mean(3).flatten(1)

    def forward(self, x: Tensor) -> Any:
        """(N, 1, 7, 7) -> (N, outputs)."""
        return self.linear(self.features(x))


class TwoHeads(Net):
    """Classes, and one value."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(11 * 7, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, 7, 7) -> (N, 5), (N, 1)."""
        features = self.features(x)
        return self.linear(features), self.value(features)


class OwnLosses(Net):
    """Returns its losses in training mode, as detectors do."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        """A mapping of two losses, or (N, 5)."""
        outputs = super().forward(x)
        if not self.training:
            return outputs
        return {"classes": nn.functional.cross_entropy(outputs, labels), "size": outputs.square().mean() / 100}


class Drawn(Dataset[tuple[Tensor, int]]):
    """Every item has random noise from all three sources; item `broken` raises."""

    def __init__(self, count: int = 23, broken: int | None = None) -> None:
        self.count, self.broken = count, broken
        self.samples = [(f"/photos/{number}.png", number % CLASSES) for number in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.broken:
            raise OSError("image file is truncated")
        noise = torch.rand(1, 7, 7) + random.random() + np.random.rand()  # noqa: NPY002 - as transforms do
        return noise + index, index % CLASSES


def build() -> nn.Module:
    """The network that a space file names."""
    return Net()


def train_loader(count: int = 40) -> DataLoader[Any]:
    """With a sampler of its own."""
    data = TensorDataset(images(count), classes(count))
    return DataLoader(data, batch_size=8, sampler=WeightedRandomSampler([1.0] * count, count))


def val_loader() -> DataLoader[Any]:
    """Other images."""
    return DataLoader(TensorDataset(images(30, 1), classes(30)), batch_size=16)


test_data = TensorDataset(images(20, 2), classes(20))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy."""
    return nn.functional.cross_entropy(outputs, targets)


def evaluate(model: nn.Module, loader: Any) -> float:
    """The share of right images, as training scripts have it."""
    right = [(model(x).argmax(1) == y).float().sum().item() for x, y in loader]
    return sum(right) / sum(len(y) for _, y in loader)


SPEC = {
    "model": {"factory": "user_tasks:build"},
    "data": {
        "train": "user_tasks:train_loader",
        "validation": "user_tasks:val_loader",
        "test": "user_tasks:test_data",
    },
    "loss": "user_tasks:loss",
    "metric": "user_tasks:evaluate",
}
