"""Data sets by name, as splits: resident ones (uint8 in memory, augmented on the device) and streamed image folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from autoprune.errors import InputError, check_name, one_of
from autoprune.tasks.augmenting import MIXTURES, OPERATIONS, MixedImages
from autoprune.tasks.base import LabelledImages, Pixels
from autoprune.tasks.data_spec import DataSpec, PixelSpec, Source
from autoprune.tasks.image_folder import image_folder_source
from autoprune.tasks.sources import FILES, digits_source, named_source, source_of_function
from autoprune.tasks.splits import check_labels, split_expressions, split_ranges


def load_splits(spec: DataSpec, where: str) -> tuple[dict[str, LabelledImages], Source]:
    """The splits `train`, `validation` and `test`, and the data set that they are of.

    Raises:
        InputError: the mapping is wrong. DataError: the data are missing, malformed, or their splits overlap.
    """
    source = _find_source(spec, where)
    _check_operations(spec.augment, source, f"{where}.augment")
    splits = select_splits(spec.splits, source, pixels_of(spec, source, where), where)
    check_labels(splits, source.classes, where)
    if any(name in MIXTURES for name in spec.augment):
        splits["train"] = MixedImages(unmixed=splits["train"], classes=source.num_classes)
    return splits, source


def select_splits(expressions: Mapping[str, str], source: Source, pixels: Pixels, where: str) -> dict[str, Any]:
    """The splits `train`, `validation` and `test` of a source.

    Args:
        expressions: by split; see `split_expressions`.
        pixels: how they are read; only `train` is augmented.

    Raises:
        InputError: an expression is wrong, or splits overlap.
    """
    ranges = split_ranges(split_expressions(expressions, source, where), source, f"{where}.splits")
    plain = replace(pixels, augment=())
    return {
        name: source.parts[part].select(low, high, pixels if name == "train" else plain)
        for name, (part, low, high) in ranges.items()
    }


def names() -> list[str]:
    """The names that `data.name` knows."""
    return sorted(_SOURCES)


def _find_source(spec: DataSpec, where: str) -> Source:
    if (spec.name is None) == (spec.function is None):
        raise InputError("give `name` or `function`, one of the two", where=where, allowed=one_of(_SOURCES))
    folder_only = {
        "path": spec.path is not None,
        "size": spec.size != DataSpec.size,
        "workers": spec.workers != DataSpec.workers,
    }
    for key, given in folder_only.items():
        if given and spec.name != "image_folder":
            raise InputError(f"{key!r} belongs to image_folder", where=where)
    if spec.arguments and spec.function is None:
        raise InputError("'arguments' belong to `function`", where=where)
    if spec.function is not None:
        return source_of_function(spec, where)
    return _SOURCES[check_name(spec.name, _SOURCES, kind="data set", where=f"{where}.name")](spec, where)


def _check_operations(augment: tuple[str, ...], source: Source, where: str) -> None:
    """Refuse what torchvision's operations are not defined for."""
    for name in augment:
        if name in OPERATIONS and source.scale != 255:
            raise InputError(f"{name} of floating-point images", where=where, allowed="it is for uint8, 0 to 255")
        if name in OPERATIONS and len(source.mean) not in (1, 3):
            what = f"{name} of images with {len(source.mean)} channels"
            raise InputError(what, where=where, allowed="it is for 1 or 3")


def pixels_of(spec: PixelSpec, source: Source, where: str) -> Pixels:
    """How images become inputs: as the `data:` mapping says, else as the source does.

    Raises:
        InputError: mean and std do not fit the images.
    """
    if bool(spec.mean) != bool(spec.std):
        raise InputError("give both `mean` and `std`, or neither", where=where)
    mean, std = spec.mean or source.mean, spec.std or source.std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != len(source.mean):
            raise InputError(
                f"{len(values)} values", where=f"{where}.{name}", allowed=f"{len(source.mean)}, one per channel"
            )
    largest = max(map(abs, (*mean, *std)))
    if source.scale != 1 and largest > 1:
        what = f"{largest:g} is on the scale of stored pixels, 0 to {source.scale:g}"
        raise InputError(what, where=where, allowed=f"mean and std of pixels in [0, 1]: divided by {source.scale:g}")
    if min(std) <= 0:
        raise InputError(f"{min(std)!r} is out of range", where=f"{where}.std", allowed="(0, inf)")
    return Pixels(mean=mean, std=std, scale=source.scale, augment=spec.augment)


_SOURCES: dict[str, Callable[[DataSpec, str], Source]] = {
    "digits": digits_source,
    **{name: partial(named_source, name) for name in FILES},
    "image_folder": image_folder_source,
}
