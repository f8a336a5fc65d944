"""Annotated images, whatever file said so: boxes are checked once, where they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autoprune.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Box:
    """An object of an image.

    Fields:
        corners: left, top, right, bottom in pixels.
        label: number of its class, from 1; 0 is the background in torchvision's convention.
        ignored: a crowd or a difficult object, which is not learnt from; finding it is neither right nor wrong.
    """

    corners: tuple[float, float, float, float]
    label: int
    ignored: bool = False

    @property
    def is_degenerate(self) -> bool:
        """Whether it has no width or no height."""
        left, top, right, bottom = self.corners
        return not (left < right and top < bottom)

    def inside(self, width: int, height: int) -> Box:
        """The part of it that lies in an image."""
        left, top, right, bottom = self.corners
        clipped = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        return replace(self, corners=clipped)


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image file and its objects. `width`, `height`: in pixels, as the annotation says."""

    file: str
    width: int
    height: int
    boxes: tuple[Box, ...]


def checked(
    parts: Mapping[str, Sequence[AnnotatedImage]], classes: Sequence[str], *, drop_degenerate: bool, where: str
) -> dict[str, list[AnnotatedImage]]:
    """The images of each part with boxes that lie inside them and have a width and a height.

    Args:
        drop_degenerate: leave out boxes that have none; otherwise they are an error.

    Raises:
        DataError: there are degenerate boxes; up to five are named.
    """
    clipped = {part: [_with_boxes_inside(image) for image in images] for part, images in parts.items()}
    degenerate = {
        f"{classes[box.label - 1]} [{', '.join(f'{corner:g}' for corner in box.corners)}] of {image.file}": None
        for images in clipped.values()
        for image in images
        for box in image.boxes
        if box.is_degenerate
    }
    if degenerate and not drop_degenerate:
        named = "; ".join(list(degenerate)[:5]) + ("; ..." if len(degenerate) > 5 else "")
        allowed = "boxes with a width and a height, or drop_degenerate: true"
        raise DataError(f"{len(degenerate)} degenerate boxes: {named}", where=where, allowed=allowed)
    return {part: [_without_degenerate(image) for image in images] for part, images in clipped.items()}


def _with_boxes_inside(image: AnnotatedImage) -> AnnotatedImage:
    return replace(image, boxes=tuple(box.inside(image.width, image.height) for box in image.boxes))


def _without_degenerate(image: AnnotatedImage) -> AnnotatedImage:
    return replace(image, boxes=tuple(box for box in image.boxes if not box.is_degenerate))


def as_target(boxes: Sequence[Box]) -> dict[str, Tensor]:
    """Boxes as torchvision's detectors and torchmetrics take them.

    `boxes` float32 (n, 4), `labels` int64 (n,), `iscrowd` int64 (n,), 1 for those that are ignored.
    """
    corners = torch.tensor([box.corners for box in boxes], dtype=torch.float32).reshape(-1, 4)
    labels, ignored = ([getattr(box, name) for box in boxes] for name in ("label", "ignored"))
    return {
        "boxes": corners,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "iscrowd": torch.tensor(ignored, dtype=torch.int64),
    }
