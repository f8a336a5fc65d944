"""Images and masks that lie in memory, augmented together on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from autoprune.tasks.base import Pixels
from autoprune.tasks.resident import InMemory, draw, shift_and_flip


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentMasks(InMemory):
    """`images`: uint8 (N, H, W, C); `masks`: uint8 (N, H, W), a class per pixel or `IGNORED`."""

    images: Tensor
    masks: Tensor
    pixels: Pixels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def to(self, device: str) -> ResidentMasks:
        """The same split with its images on `device`."""
        return replace(self, images=self.images.to(device), masks=self.masks.to(device))

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (B, C, H, W) float32 and masks (B, H, W) int64; see `Split.batches`."""
        home, height = self.images.device, self.images.shape[1]
        draws = None if seed is None else draw(len(order), height, self.pixels.augment, seed).to(home)
        order = order.to(home)
        for low in range(start * batch_size, len(order), batch_size):
            chosen = order[low : low + batch_size]
            images, masks = self.images.index_select(0, chosen), self.masks.index_select(0, chosen)
            if draws is not None and self.pixels.augment:
                moves = draws[low : low + batch_size]
                images, masks = shift_and_flip(images, moves), _moved_masks(masks, moves)
            yield self.pixels.normalise(images.to(device)), masks.to(device).long()

    def fingerprint(self) -> str:
        """SHA-256 over shapes, pixels and masks."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {tuple(self.masks.shape)}".encode())
        for tensor in (self.images, self.masks):
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def _moved_masks(masks: Tensor, moves: Tensor) -> Tensor:
    """Masks moved as their images. One more than 255 is 0 in uint8, and zeros lie beyond the border: both are 255."""
    return shift_and_flip((masks + 1)[..., None], moves)[..., 0] - 1
