"""Splits of images with boxes: in memory, and in files that are decoded batch by batch.

A batch is images, a list of (C, H, W) float32 from 0 to 1, and targets, a list of mappings; see `as_target`. Detectors
of torchvision's convention normalise by themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoprune.errors import DataError
from autoprune.recipe import stable_hash
from autoprune.tasks.base import Split
from autoprune.tasks.detection.annotations import AnnotatedImage, as_target
from autoprune.tasks.detection.augmenting import Target, augmented
from autoprune.tasks.file_batches import decoded_batches
from autoprune.tasks.image_folder import read_image
from autoprune.training.batch_structure import moved
from autoprune.training.processes import ALONE, Processes
from autoprune.training.seeds import random_stream

Detections = tuple[list[Tensor], list[Target]]


class ImagesWithBoxes(Split):
    """One part of a detection data set. `targets`: what is to be found, image by image."""

    targets: tuple[Target, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.targets)

    def objects(self) -> int:
        """Number of objects that are learnt from."""
        return sum(int((target["iscrowd"] == 0).sum()) for target in self.targets)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentBoxes(ImagesWithBoxes):
    """Images that lie in memory. `images`: uint8 (N, C, H, W)."""

    images: Tensor
    targets: tuple[Target, ...]
    augment: tuple[str, ...]

    def to(self, device: str) -> ResidentBoxes:
        """The same split with its images on `device`."""
        return replace(self, images=self.images.to(device), targets=moved(self.targets, device))

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[Detections]:
        """See `Split.batches`; images and targets as the module says."""
        chosen = order.tolist()
        for low in range(start * batch_size, len(chosen), batch_size):
            pairs = [self._pair(index, low + k, seed) for k, index in enumerate(chosen[low : low + batch_size])]
            yield moved(_as_lists(pairs), device)

    def _pair(self, index: int, place: int, seed: int | None) -> tuple[Tensor, Target]:
        image, target = self.images[index].float() / 255, self.targets[index]
        if seed is None or not self.augment:
            return image, target
        return augmented(image, target, self.augment, random_stream(seed, place))

    def fingerprint(self) -> str:
        """SHA-256 over pixels and boxes."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)}".encode())
        digest.update(self.images.cpu().contiguous().numpy())
        for target in self.targets:
            digest.update(stable_hash({name: values.tolist() for name, values in target.items()}).encode())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedBoxes(ImagesWithBoxes):
    """Image files with their boxes, decoded in `workers` processes."""

    annotated: tuple[AnnotatedImage, ...]
    targets: tuple[Target, ...]
    augment: tuple[str, ...]
    workers: int | None
    processes: Processes = ALONE

    @classmethod
    def of(cls, annotated: tuple[AnnotatedImage, ...], augment: tuple[str, ...], workers: int | None) -> StreamedBoxes:
        """The split of these images."""
        targets = tuple(as_target(image.boxes) for image in annotated)
        return cls(annotated=annotated, targets=targets, augment=augment, workers=workers)

    def to(self, device: str) -> StreamedBoxes:
        """Itself: the images stay in their files."""
        return self

    def of_process(self, processes: Processes) -> StreamedBoxes:
        """See `Split.of_process`: other images are not decoded."""
        return replace(self, processes=processes)

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[Detections]:
        """See `Split.batches`; images and targets as the module says."""
        options: dict[str, Any] = {"workers": self.workers, "seed": seed, "start": start, "processes": self.processes}
        for batch in decoded_batches(self, order, batch_size, _as_lists, device=device, **options):
            images, targets = moved(batch, device)
            yield [image.float() / 255 for image in images], targets

    def fingerprint(self) -> str:
        """SHA-256 over names, sizes of files and boxes (the pixels of a large folder are too many to read)."""
        digest = hashlib.sha256()
        for image in self.annotated:
            file = Path(image.file)
            digest.update(f"{file.name} {file.stat().st_size} {stable_hash(asdict(image)['boxes'])}\n".encode())
        return digest.hexdigest()

    def name(self, index: int) -> str:
        """See `Decoder.name`."""
        return self.annotated[index].file

    def decode(self, index: int, stream: torch.Generator | None) -> tuple[Tensor, Target]:
        """Pixels (3, H, W), uint8, and the target; see `Decoder.decode`."""
        annotated = self.annotated[index]
        image, wanted = read_image(annotated.file), (annotated.height, annotated.width)
        if tuple(image.shape[1:]) != wanted:
            found = f"an image of {tuple(image.shape[1:])} pixels, by its annotation {wanted}"
            raise DataError(found, where=annotated.file, allowed="the same height and width")
        if stream is None or not self.augment:
            return image, self.targets[index]
        return augmented(image, self.targets[index], self.augment, stream)


def _as_lists(pairs: list[tuple[Tensor, Target]]) -> Detections:
    return [image for image, _ in pairs], [target for _, target in pairs]
