"""Batches and inputs of any structure: how many images they hold, how they grow, how they move, what they are.

In them a tuple or a mapping is structure, such as images beside labels; a list has one entry per image, such as images
of different sizes; a tensor outside of lists has one row per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from autoprune.errors import DataError


def images_in(batch: Any) -> int:
    """Number of images of a batch: the rows of its first tensor, or the entries of its first list.

    Raises:
        DataError: it holds neither.
    """
    count = _count_images(batch)
    if count is None:
        raise DataError(f"a {type(batch).__name__} without tensors", where="batch", allowed="tensors, or lists of them")
    return count


def repeated(inputs: Any, images: int) -> Any:
    """The inputs of one image as those of several equal ones."""
    if isinstance(inputs, Tensor):
        return inputs.repeat(images, *[1] * (inputs.dim() - 1)) if inputs.dim() else inputs
    if isinstance(inputs, list):
        return inputs * images
    if isinstance(inputs, Mapping):
        return {name: repeated(item, images) for name, item in inputs.items()}
    return tuple(repeated(item, images) for item in inputs) if isinstance(inputs, tuple) else inputs


def rows_of(batch: Any, number: int, parts: int) -> Any:
    """Part `number`, from 0, of a batch that is dealt out in so many parts, which differ by one image at most."""
    if isinstance(batch, Tensor):
        return batch[_share(len(batch), number, parts)] if batch.dim() else batch
    if isinstance(batch, list):
        return batch[_share(len(batch), number, parts)]
    if isinstance(batch, Mapping):
        return {name: rows_of(item, number, parts) for name, item in batch.items()}
    if not isinstance(batch, tuple):
        return batch
    rows = [rows_of(item, number, parts) for item in batch]
    return type(batch)(*rows) if hasattr(batch, "_fields") else tuple(rows)  # a named tuple keeps its names


def moved(batch: Any, device: str) -> Any:
    """The same with its tensors on `device`; all else is as it was."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=True), batch)


def describe_structure(batch: Any) -> str:
    """What a batch is made of, without sizes: `(float32 4-d, int64 1-d)`."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {batch.dim()}-d"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{name}: {describe_structure(item)}" for name, item in batch.items()) + "}"
    if isinstance(batch, tuple):
        return f"({', '.join(map(describe_structure, batch))})"
    return "a list" if isinstance(batch, list) else type(batch).__name__


def _share(images: int, number: int, parts: int) -> slice:
    return slice(number * images // parts, (number + 1) * images // parts)


def _count_images(batch: Any) -> int | None:
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    if isinstance(batch, list):
        return len(batch)
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple) else ()
    return next((count for part in parts if (count := _count_images(part)) is not None), None)
