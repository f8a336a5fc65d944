"""Augmentation of an image and its boxes together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Zoom of `scale`: from half the size, with black around, to half as large again, of which a part is seen.
ZOOM = (0.5, 1.5)

#: Share of its area that an object must keep to be one still.
SEEN = 0.4

Target = dict[str, Tensor]


def augmented(image: Tensor, target: Target, names: tuple[str, ...], stream: torch.Generator) -> tuple[Tensor, Target]:
    """An image, (C, H, W), and its boxes after the changes that are asked for, as `stream` draws them.

    Args:
        names: `flip` mirrors half of the images; `scale` zooms by a factor from `ZOOM` at a place of its own.
    """
    mirrored, zoom, down, right = torch.rand(4, generator=stream).tolist()
    if "scale" in names:
        image, target = _zoomed(image, target, ZOOM[0] * (ZOOM[1] / ZOOM[0]) ** zoom, down, right)
    if "flip" in names and mirrored < 0.5:
        image, target = image.flip(2), _mirrored(target, image.shape[2])
    return image, target


def _mirrored(target: Target, width: int) -> Target:
    left, top, right, bottom = target["boxes"].unbind(1)
    return {**target, "boxes": torch.stack([width - right, top, width - left, bottom], 1)}


def _zoomed(image: Tensor, target: Target, zoom: float, down: float, right: float) -> tuple[Tensor, Target]:
    """The image at another scale in a frame of its old size.

    Args:
        down, right: where between its two ends the picture lies in the frame, or the frame in the picture; [0, 1).
    """
    from torchvision.transforms.v2 import functional as T

    height, width = image.shape[1:]
    rows, columns = max(1, round(height * zoom)), max(1, round(width * zoom))
    top, left = round(down * (height - rows)), round(right * (width - columns))  # below 0 where a part is seen
    resized = T.resize(image, [rows, columns], antialias=True)
    framed = F.pad(resized, (left, width - columns - left, top, height - rows - top))
    factor = target["boxes"].new_tensor([columns / width, rows / height] * 2)
    moved = target["boxes"] * factor + target["boxes"].new_tensor([left, top] * 2)
    return framed, _seen(target, moved, width, height)


def _seen(target: Target, moved: Tensor, width: int, height: int) -> Target:
    """The objects of which enough lies in the frame, their boxes cut at its border."""
    limits = moved.new_tensor([width, height] * 2)
    boxes = torch.minimum(moved.clamp_min(0), limits)
    whole, part = (((b[:, 2:] - b[:, :2]).clamp_min(0)).prod(1) for b in (moved, boxes))
    enough = part > SEEN * whole
    return {name: values[enough] for name, values in {**target, "boxes": boxes}.items()}
