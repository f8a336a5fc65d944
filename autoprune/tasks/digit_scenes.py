"""Scenes pasted from scikit-learn's digits: grey images with a few digits each, their boxes and a mask, without a file.

They are made with whole numbers only, so that a seed gives the same scenes on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.errors import InputError
from autoprune.schema import read, within
from autoprune.tasks.sources import digits_by_part

#: Classes of a scene's digits: the digit plus 1; 0 is the background.
CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")

#: Grey value from which a pixel of a digit is ink: boxes and masks are those of the ink, not of the grey around it.
INK = 64

#: How often a place is drawn for a digit before the scene goes without it.
TRIES = 50


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """The `arguments` of the data set `digit_scenes`.

    Fields:
        size: side of the square scenes in pixels. A digit is drawn 8 k pixels wide, k from size / 32 to 3 size / 64.
        most: largest number of digits in a scene; the smallest is 1.
        overlap: largest share of a digit's box that another's may cover.
        noise: largest grey value of the background, drawn anew for each pixel; 255 is white.
        channels: 1 for grey images, 3 for the same grey three times, which torchvision's networks take.
        train, validation, test: number of scenes. The digits of one part are in no other.
        seed: of everything that is drawn.
    """

    size: int = field(default=64, metadata=within(32, 1024))
    most: int = field(default=4, metadata=within(1, 100))
    overlap: float = field(default=0.2, metadata=within(0, 1))
    noise: int = field(default=64, metadata=within(0, 255))
    channels: int = field(default=1, metadata=within(1, 3))
    train: int = field(default=2000, metadata=within(1, 10**6))
    validation: int = field(default=400, metadata=within(1, 10**6))
    test: int = field(default=400, metadata=within(1, 10**6))
    seed: int = field(default=0, metadata=within(0, 2**32 - 1))

    def __post_init__(self) -> None:
        if self.channels == 2:
            raise InputError("2 channels", where="digit_scenes", allowed="1 or 3")


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """One part of the data set.

    Fields:
        images: uint8 (N, size, size, channels).
        masks: uint8 (N, size, size): 0 background, digit + 1 its ink; where digits cross, that of the last one pasted.
        boxes: of scene i float32 (n_i, 4): left, top, right, bottom of the ink in pixels, right and bottom exclusive.
        labels: of scene i int64 (n_i,): digit + 1.
    """

    images: Tensor
    masks: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]


def make_scenes(arguments: Mapping[str, Any], where: str) -> dict[str, Scenes]:
    """The parts `train`, `validation` and `test`.

    Raises:
        InputError: an argument is unknown or out of range.
    """
    spec = read(SceneSpec, arguments, where)
    counts = {"train": spec.train, "validation": spec.validation, "test": spec.test}
    return {
        part: _scenes_of_part(*digits, counts[part], np.random.default_rng([spec.seed, number]), spec)
        for number, (part, digits) in enumerate(digits_by_part().items())
    }


def _scenes_of_part(
    digits: NDArray[np.uint8], labels: NDArray[np.int64], count: int, rng: np.random.Generator, spec: SceneSpec
) -> Scenes:
    scenes = [_paste_scene(digits, labels, rng, spec) for _ in range(count)]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))[..., None]
    return Scenes(
        images=images.expand(-1, -1, -1, spec.channels).contiguous(),
        masks=torch.from_numpy(np.stack([scene.mask for scene in scenes])),
        boxes=tuple(torch.tensor(scene.boxes, dtype=torch.float32) for scene in scenes),
        labels=tuple(torch.tensor(scene.labels, dtype=torch.int64) for scene in scenes),
    )


class _Canvas:
    """A scene while digits are pasted into it."""

    def __init__(self, background: NDArray[np.uint8]) -> None:
        self.image, self.mask = background, np.zeros_like(background)
        self.boxes: list[tuple[int, int, int, int]] = []
        self.labels: list[int] = []

    def paste(self, digit: NDArray[np.uint8], label: int, top: int, left: int, box: tuple[int, int, int, int]) -> None:
        """Draw a digit, brighter pixels over darker ones; its ink covers the mask."""
        place = np.s_[top : top + len(digit), left : left + len(digit)]
        self.image[place] = np.maximum(self.image[place], digit)
        self.mask[place][digit >= INK] = label + 1
        self.boxes.append(box)
        self.labels.append(label + 1)


def _paste_scene(
    digits: NDArray[np.uint8], labels: NDArray[np.int64], rng: np.random.Generator, spec: SceneSpec
) -> _Canvas:
    canvas = _Canvas(rng.integers(0, spec.noise, (spec.size, spec.size), dtype=np.uint8, endpoint=True))
    for index in rng.integers(0, len(digits), rng.integers(1, spec.most, endpoint=True)):
        scale = rng.integers(spec.size // 32, 3 * spec.size // 64, endpoint=True)
        digit = np.kron(digits[index], np.ones((scale, scale), dtype=np.uint8))
        for top, left in rng.integers(0, spec.size - len(digit), (TRIES, 2), endpoint=True).tolist():
            box = _box_of_ink(digit, top, left)
            if all(_covered_share(box, other) <= spec.overlap for other in canvas.boxes):
                canvas.paste(digit, int(labels[index]), top, left, box)
                break
    return canvas


def _box_of_ink(digit: NDArray[np.uint8], top: int, left: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the ink of a digit whose corner lies at (top, left)."""
    rows, columns = (np.flatnonzero((digit >= INK).any(axis)) for axis in (1, 0))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _covered_share(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Area that two boxes share, as a share of the smaller one."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(0, width) * max(0, height) / smaller
