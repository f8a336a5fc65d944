"""Arrays that users hand in: images and labels as tensors, or what is wrong with them and how to put it right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.errors import DataError

#: Numbers of channels that say where the channels of an array are: grey, colour, colour and transparency.
CHANNELS = (1, 3, 4)

#: Classes that a network may have; a larger label is no class but something else, such as an identity.
MOST_CLASSES = 2**20

IMAGES = "uint8 or float, (N, H, W) or (N, H, W, C)"


def checked_images(found: Any, where: str) -> Tensor:
    """Images as (N, H, W, C), uint8 or float32.

    Args:
        found: what the user calls images.
        where: the data set and its part, for errors.

    Raises:
        DataError: these are no such images.
    """
    images = _as_array(found, where)
    if images.ndim == 3:
        images = images[..., None]
    _check_kind(images, where)
    if images.dtype.kind == "f":
        _check_finite(images, where)
    pixels = images if images.dtype == np.uint8 else images.astype(np.float32)
    # copied where read-only (Ray's object store, memory maps): from_numpy would write through to it silently
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def _as_array(found: Any, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(found)
    except ValueError:  # NumPy makes no array of rows that differ
        array = np.empty(0, dtype=object)
    if array.dtype == object:
        shapes = {np.shape(image) for image in found} if isinstance(found, (list, tuple, np.ndarray)) else set()
        if len(shapes) > 1:
            first, second, *_ = sorted(shapes)
            raise DataError(f"images of several sizes, {first} and {second}", where=where, allowed="one size for all")
        raise DataError(f"images are a {type(found).__name__} of objects", where=where, allowed=IMAGES)
    return array


def _check_kind(images: NDArray[Any], where: str) -> None:
    what = f"images are {images.dtype} {images.shape}"
    if images.ndim != 4:
        raise DataError(what, where=where, allowed=IMAGES)
    if 0 in images.shape:
        raise DataError(f"{what}: there are none", where=where, allowed="one image or more")
    if _channels_come_first(images.shape):
        allowed = f"{IMAGES}: images.transpose(0, 2, 3, 1) puts channels last"
        raise DataError(f"{what}: channels come first", where=where, allowed=allowed)
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(what, where=where, allowed=f"{IMAGES}{_conversion(images)}")


def _channels_come_first(shape: tuple[int, ...]) -> bool:
    """Whether it looks like (N, C, H, W): three or four rows of a wide image with many channels are no image."""
    _, first, second, third = shape
    large = min(second, third) > max(CHANNELS)
    return large and (first in CHANNELS[1:] or (first == 1 and second == third))


def _conversion(images: NDArray[Any]) -> str:
    """How images of this kind become such as are taken."""
    if images.dtype.kind not in "iu":
        return ""
    low, high = int(images.min()), int(images.max())
    if low >= 0 and high <= 255:
        return ": images.astype('uint8')"
    return f": they go from {low} to {high}, (images / {max(high, 1)}).astype('float32') takes them to 1"


def _check_finite(images: NDArray[Any], where: str) -> None:
    bad = ~np.isfinite(images).all(axis=(1, 2, 3))
    if bad.any():
        what = (
            f"images hold NaN or infinity, {int(bad.sum())} of {len(images)}, the first is number {int(bad.argmax())}"
        )
        raise DataError(what, where=where, allowed="finite numbers")


def check_varied(images: Tensor, where: str) -> None:
    """Raise `DataError` if all pixels of the training images are equal: nothing can be learnt of them."""
    if bool((images == images.flatten()[0]).all()):
        what = f"all pixels of all images are {images.flatten()[0].item():g}"
        raise DataError(what, where=where, allowed="images that differ")


def checked_labels(found: Any, images: int, where: str) -> Tensor:
    """Labels as int64 (N,), or float32 (N, labels) of 0 and 1 where images have several.

    Args:
        found: names have become numbers.
        images: how many there are.
        where: the data set and its part, for errors.

    Raises:
        DataError: these are no such labels.
    """
    labels = np.asarray(found)
    _check_length(labels, images, where)
    if labels.ndim == 1:
        _check_numbers(labels, where)
        return torch.from_numpy(labels.astype(np.int64))
    _check_several(labels, where)
    return torch.from_numpy(labels.astype(np.float32))  # of several labels per image, each is a number of its own


def _check_length(labels: NDArray[Any], images: int, where: str) -> None:
    what = f"labels are {labels.dtype} {labels.shape}"
    allowed = f"whole numbers from 0 or names, ({images},); or 0 and 1, ({images}, labels)"
    if labels.ndim not in (1, 2):
        raise DataError(what, where=where, allowed=allowed)
    if len(labels) != images:
        raise DataError(f"{what}, {len(labels)} for {images} images", where=where, allowed=allowed)
    if labels.ndim == 2 and labels.shape[1] == 1 and labels.max() > 1:
        raise DataError(f"{what}: a column", where=where, allowed=f"({images},): labels[:, 0]")
    if _is_one_hot(labels) and labels.dtype.kind == "f":
        raise DataError(f"{what}: one-hot", where=where, allowed=f"({images},): labels.argmax(1)")
    if labels.dtype.kind not in ("iu" if labels.ndim == 1 else "iub"):
        whole = labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
        raise DataError(what, where=where, allowed=allowed + (": labels.astype('int64')" if whole else ""))


def _is_one_hot(labels: NDArray[Any]) -> bool:
    if labels.ndim != 2 or labels.dtype.kind not in "iubf" or labels.shape[1] < 2:
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all())


def are_one_hot(labels: Tensor) -> bool:
    """Whether rows of 0 and 1 say one class each."""
    return _is_one_hot(labels.numpy())


def _check_numbers(labels: NDArray[Any], where: str) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        count = int((labels < 0).sum())
        allowed = "whole numbers from 0: labels - labels.min(), or without images of no class"
        raise DataError(f"labels go from {low} to {high}, {count} are negative", where=where, allowed=allowed)
    if high >= MOST_CLASSES:
        what, allowed = (
            f"a label is {high}",
            f"classes numbered from 0, at most {MOST_CLASSES:,}: numpy.unique numbers them",
        )
        raise DataError(what, where=where, allowed=allowed)


def _check_several(labels: NDArray[Any], where: str) -> None:
    if labels.shape[1] == 0:
        raise DataError(f"labels are {labels.dtype} {labels.shape}", where=where, allowed="a label or more per image")
    strange = labels[(labels != 0) & (labels != 1)]
    if len(strange):
        raise DataError(f"a label is {strange[0]}", where=where, allowed="0 and 1, where images have several")
