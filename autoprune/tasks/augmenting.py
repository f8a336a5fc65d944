"""torchvision's augmentations: operations on one image, and batches whose images are mixed with one another.

Both draw from torch's default generator alone; here that is for as long a stream of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from autoprune.tasks.base import LabelledImages, Pixels
from autoprune.training.seeds import drawing_from, random_stream

#: What changes the colours or the geometry of one image, and what mixes the images of a batch.
OPERATIONS, MIXTURES = ("trivial_augment", "rand_augment"), ("mixup", "cutmix")

#: Beta distributions that shares of images are drawn from, as in torchvision's reference training of ResNet-50.
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0


def operated(image: Tensor, augment: tuple[str, ...], stream: torch.Generator) -> Tensor:
    """An image, uint8 (C, H, W), after those of `OPERATIONS` that are named, in their order, as `stream` draws them.

    At 3x32x32 TrivialAugment takes 0.2 ms of an image, RandAugment 0.4 ms (one thread of a Xeon, CPU time, fastest of 4
    times 400 images); the stream of random numbers 0.03 ms more (wall clock).
    """
    with drawing_from(stream):
        for name in augment:
            if name in OPERATIONS:
                image = _operation(name)(image)
    return image


def operated_images(images: Tensor, augment: tuple[str, ...], seed: int, first: int) -> Tensor:
    """A batch, uint8 (B, H, W, C) on the CPU, each image on its own; see `operated`.

    Args:
        first: place of the first of them in the order of the epoch.
    """
    each = (
        operated(image.permute(2, 0, 1), augment, random_stream(seed, first + place, 1)).permute(1, 2, 0)
        for place, image in enumerate(images)
    )
    return torch.stack(list(each))


@functools.cache
def _operation(name: str) -> Any:
    from torchvision.transforms import v2

    return {"trivial_augment": v2.TrivialAugmentWide, "rand_augment": v2.RandAugment}[name]()


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedImages(LabelledImages):
    """Images of which a batch that is augmented is mixed: one share for the batch, each image with the one before it.

    The targets of such a batch are shares of classes, float32 (B, classes). At 3x32x32 it takes 0.02 ms of an image
    (batches of 128, one thread of a Xeon).

    Fields:
        unmixed: the images as they are, or augmented one by one.
        classes: number of classes, or of labels where images have several.
    """

    unmixed: LabelledImages
    classes: int

    @property
    def labels(self) -> Tensor:  # type: ignore[override]
        """See `LabelledImages`."""
        return self.unmixed.labels

    @property
    def pixels(self) -> Pixels:  # type: ignore[override]
        """See `LabelledImages`; `augment` says how batches are mixed."""
        return self.unmixed.pixels

    @property
    def in_memory(self) -> bool:
        """See `Split.in_memory`."""
        return self.unmixed.in_memory

    def to(self, device: str) -> MixedImages:
        """See `Split.to`."""
        return replace(self, unmixed=self.unmixed.to(device))

    def fingerprint(self) -> str:
        """See `Split.fingerprint`."""
        return self.unmixed.fingerprint()

    def fetch(
        self, order: Tensor, batch_size: int, *, device: str, seed: int | None, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `LabelledImages.fetch`: what is stored is not mixed."""
        return self.unmixed.fetch(order, batch_size, device=device, seed=seed, start=start)

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `LabelledImages.batches`; with a seed, the labels are shares."""
        batches = super().batches(order, batch_size, device=device, seed=seed, start=start)
        for number, (inputs, labels) in enumerate(batches, start):
            yield (inputs, labels) if seed is None else self._mixed(inputs, labels, random_stream(seed, number, 2))

    def _mixed(self, inputs: Tensor, labels: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        named = [name for name in self.pixels.augment if name in MIXTURES]
        name = named[int(torch.randint(len(named), (), generator=stream))]
        with drawing_from(stream):
            inputs, labels = _mixture(name, self.classes)(inputs, labels)
        return inputs.contiguous(memory_format=torch.channels_last), labels


@functools.cache
def _mixture(name: str, classes: int) -> Any:
    from torchvision.transforms import v2

    if name == "mixup":
        return v2.MixUp(alpha=MIXUP_ALPHA, num_classes=classes)
    return v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=classes)
