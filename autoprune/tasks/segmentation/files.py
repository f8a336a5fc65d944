"""Images and masks in files, decoded batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from autoprune.errors import DataError
from autoprune.tasks.base import Pixels, Split
from autoprune.tasks.file_batches import decoded_batches
from autoprune.tasks.image_folder import random_box, read_image
from autoprune.training.processes import ALONE, Processes

#: The class of pixels that count neither in a loss nor in a metric, as in VOC.
IGNORED = 255


@dataclass(frozen=True, kw_only=True)
class StreamedMasks(Split):
    """Pairs of image and mask files, decoded in `workers` processes.

    Fields:
        files: (image, mask) of each pair.
        classes: classes of a pixel, 0 to classes - 1; others than these and `IGNORED` are refused.
        size: side of the square that the network sees. An image is scaled so that its longer side fits, with black
            and ignored pixels beyond; `crop` takes a random part instead, 25 to 100 % of its area, as the square.
    """

    files: tuple[tuple[str, str], ...]
    classes: int
    size: int
    workers: int | None
    pixels: Pixels
    processes: Processes = ALONE

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def to(self, device: str) -> StreamedMasks:
        """Itself: the images stay in their files."""
        return self

    def of_process(self, processes: Processes) -> StreamedMasks:
        """See `Split.of_process`: other images are not decoded."""
        return replace(self, processes=processes)

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (B, 3, size, size) float32 and masks (B, size, size) int64; see `Split.batches`."""
        options: dict[str, Any] = {"workers": self.workers, "seed": seed, "start": start, "processes": self.processes}
        for images, masks in decoded_batches(self, order, batch_size, default_collate, device=device, **options):
            pixels, classes = images.to(device, non_blocking=True), masks.to(device, non_blocking=True)
            yield self.pixels.normalise(pixels), classes.long()

    def fingerprint(self) -> str:
        """SHA-256 over names and sizes of the files (the pixels of a large folder are too many to read)."""
        digest = hashlib.sha256(f"{self.size} {self.classes}\n".encode())
        for file in (file for pair in self.files for file in pair):
            digest.update(f"{Path(file).name} {Path(file).stat().st_size}\n".encode())
        return digest.hexdigest()

    def name(self, index: int) -> str:
        """See `Decoder.name`."""
        return " or ".join(self.files[index])

    def decode(self, index: int, stream: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Pixels (size, size, 3) and classes (size, size), uint8; see `Decoder.decode`."""
        image, mask = read_image(self.files[index][0]), _read_mask(self.files[index][1], self.classes)
        if image.shape[1:] != mask.shape:
            sizes = " and ".join("x".join(map(str, shape)) for shape in (image.shape[1:], mask.shape))
            raise DataError(f"image and mask are {sizes}", where=self.files[index][1], allowed="the same size")
        image, mask = self._as_square(image, mask[None], stream)
        if stream is not None and "flip" in self.pixels.augment and torch.rand((), generator=stream) < 0.5:
            image, mask = image.flip(2), mask.flip(2)
        return image.permute(1, 2, 0).contiguous(), mask[0].contiguous()

    def _as_square(self, image: Tensor, mask: Tensor, stream: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Both of them (channels, size, size)."""
        height, width = image.shape[1:]
        if stream is not None and "crop" in self.pixels.augment:
            top, left, height, width = random_box(height, width, stream, least=0.25)
            part = np.s_[:, top : top + height, left : left + width]
            return _resized_pair(image[part], mask[part], self.size, self.size)
        scale = self.size / max(height, width)
        image, mask = _resized_pair(image, mask, max(1, round(height * scale)), max(1, round(width * scale)))
        beyond = (0, self.size - image.shape[2], 0, self.size - image.shape[1])
        return F.pad(image, beyond), F.pad(mask, beyond, value=IGNORED)


def _resized_pair(image: Tensor, mask: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The image between pixels, the mask by the nearest: a class between two others means nothing."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as T

    nearest = InterpolationMode.NEAREST_EXACT
    return T.resize(image, [height, width], antialias=True), T.resize(mask, [height, width], interpolation=nearest)


def _read_mask(path: str, classes: int) -> Tensor:
    """Classes (H, W) uint8 of a mask file: grey values, or the entries of a palette.

    Raises:
        DataError: it has colours, or a class that is not one of the task's.
    """
    from PIL import Image

    with Image.open(path) as opened:
        mode, mask = opened.mode, np.array(opened)
    if mode not in ("L", "P"):
        raise DataError(f"a mask of mode {mode}", where=path, allowed="8-bit grey or palette (L, P): a class per pixel")
    strange = sorted({int(value) for value in np.unique(mask)} - {*range(classes), IGNORED})
    if strange:
        allowed = f"0 to {classes - 1}, {IGNORED} = ignored"
        raise DataError(f"classes {strange[:5]} in a mask", where=path, allowed=allowed)
    return torch.from_numpy(mask)
