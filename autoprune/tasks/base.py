"""Task: everything a trial has to know about a problem: model factory, data splits, loss and what counts as correct."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How stored pixels become inputs: (x / scale - mean) / std per channel; and what training may do to them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    augment: tuple[str, ...] = ()

    def normalise(self, images: Tensor) -> Tensor:
        """(N, H, W, C) of any type -> (N, C, H, W) float32; the memory stays channels-last, nothing is copied twice."""
        mean, std = (
            torch.tensor(values, device=images.device, dtype=torch.float32) for values in (self.mean, self.std)
        )
        return images.float().mul_(1 / (self.scale * std)).sub_(mean / std).permute(0, 3, 1, 2)


class Split(ABC):
    """Labelled images of one part of a data set. `labels`: int64 (N,). Fetch them with `batches`."""

    labels: Tensor
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def fetch(
        self, order: Tensor, batch_size: int, *, device: str, seed: int | None, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Stored pixels (B, H, W, C) and labels of `order`, batch by batch, on `device`; arguments as of `batches`."""

    @abstractmethod
    def to(self, device: str) -> Split:
        """The same split with its images on `device`, or itself where they do not fit there."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digest of the images and labels."""

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Network inputs (B, C, H, W) float32, channels-last, and labels (B,), on `device`.

        Args:
            order: indices into the split, int64 (N,); the last batch may be smaller.
            seed: augment as this seed says (every image of `order` has its own draw); None = the images as they are.
            start: number of leading batches left out; the others are what they would have been.
        """
        for images, labels in self.fetch(order, batch_size, device=device, seed=seed, start=start):
            yield self.pixels.normalise(images), labels


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A problem to prune for.

    Fields:
        spec: the `task:` mapping it was read from.
        train, validation, test: disjoint splits. Selection looks at `validation`; `test` is read once, at the very end.
    """

    spec: Mapping[str, Any]
    num_classes: int
    train: Split
    validation: Split
    test: Split

    @abstractmethod
    def build(self, seed: int = 0) -> nn.Module:
        """A new dense model with the weights its factory draws with this seed; in eval mode, on the CPU."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A new dense model with its trained weights, in eval mode, on the CPU.

        Raises:
            ModelError: the checkpoint does not fit, or the model's output is not what the task needs.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch, float32."""

    @abstractmethod
    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Number of images of the batch that are right, a scalar on the outputs' device."""

    def example(self) -> Tensor:
        """The first training image as the network sees it, (1, C, H, W) float32 on the CPU, without augmentation."""
        inputs, _ = next(self.train.batches(torch.zeros(1, dtype=torch.int64), 1))
        return inputs.contiguous()


def check_outputs(outputs: object, num_classes: int, where: str) -> None:
    """Raise `ModelError` unless the model answered one tensor (N, num_classes) for a batch of two images."""
    if not isinstance(outputs, Tensor):
        raise ModelError(
            f"the model returns a {type(outputs).__name__}", where=where, allowed="one tensor (N, classes)"
        )
    if outputs.shape != (2, num_classes):
        shape = tuple(outputs.shape)
        raise ModelError(f"the model returns {shape} for 2 images", where=where, allowed=f"(2, {num_classes})")
