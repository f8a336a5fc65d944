"""A split that lies in memory, augmented where its images lie."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from autoprune.tasks.augmenting import OPERATIONS, operated_images
from autoprune.tasks.base import LabelledImages, Pixels, Split
from autoprune.training.seeds import random_stream

#: Augmentations that move pixels.
MOVES = {"crop", "flip"}


class InMemory(Split):
    """A split whose fields are tensors and plain values.

    It is pickled with arrays in place of its tensors: those the object store of Ray keeps once on each node, for all
    processes there, while of a tensor each process would have a copy. So its tensors may lie in memory that belongs to
    others and must never be written to; what `batches` gives is copied out of them.
    """

    @property
    def in_memory(self) -> bool:
        """See `Split.in_memory`."""
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        arrays, values = {}, {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                arrays[name] = value.cpu().contiguous().numpy()
            else:
                values[name] = value
        return _of_arrays, (type(self), arrays, values)


def _of_arrays(kind: type[InMemory], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> InMemory:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and nobody writes to it
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return kind(**tensors, **values)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resident(InMemory, LabelledImages):
    """A split that lies in memory. `images`: (N, H, W, C), uint8 or float32; `labels`: int64 (N,)."""

    images: Tensor
    labels: Tensor
    pixels: Pixels

    def to(self, device: str) -> Resident:
        """The same split with its images on `device`; itself where torchvision's operations run on them, on the CPU."""
        if self._is_operated_on:
            return self
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def fetch(
        self, order: Tensor, batch_size: int, *, device: str, seed: int | None, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `LabelledImages.fetch`. Where the images lie on another device, only the batches travel."""
        home, augment = self.images.device, self.pixels.augment
        moves = None
        if seed is not None and MOVES & set(augment):
            moves = draw(len(order), self.images.shape[1], augment, seed).to(home)
        order = order.to(home)
        for low in range(start * batch_size, len(order), batch_size):
            chosen = order[low : low + batch_size]
            images = self.images.index_select(0, chosen)
            if moves is not None:
                images = shift_and_flip(images, moves[low : low + batch_size])
            if seed is not None and self._is_operated_on:
                images = operated_images(images, augment, seed, low)
            yield images.to(device), self.labels.index_select(0, chosen).to(device)

    @property
    def _is_operated_on(self) -> bool:
        return any(name in OPERATIONS for name in self.pixels.augment)

    def fingerprint(self) -> str:
        """SHA-256 over shape, type, pixels and labels."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        digest.update(self.images.cpu().contiguous().numpy())
        digest.update(self.labels.cpu().contiguous().numpy())
        return digest.hexdigest()


def draw(count: int, height: int, augment: tuple[str, ...], seed: int) -> Tensor:
    """Augmentation of `count` images: int64 (count, 3) = rows down, columns right, mirrored (0 or 1), on the CPU."""
    reach = height // 8 if "crop" in augment else 0
    stream = random_stream(seed)
    shifts = torch.randint(-reach, reach + 1, (count, 2), generator=stream)
    flips = torch.randint(0, 2 if "flip" in augment else 1, (count, 1), generator=stream)
    return torch.cat([shifts, flips], 1)


def shift_and_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Each image (H, W, C) shifted, zeros beyond its border, then mirrored; `draws` as `draw` makes them."""
    count, height, width = images.shape[:3]
    reach = max(1, height // 8)
    padded = F.pad(images, (0, 0, reach, reach, reach, reach))
    rows = torch.arange(height, device=images.device) + reach - draws[:, 0:1]
    columns = torch.arange(width, device=images.device).expand(count, -1)
    columns = torch.where(draws[:, 2:3] > 0, width - 1 - columns, columns) + reach - draws[:, 1:2]
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]]
