"""Data sets by name, as splits: resident ones (uint8 in memory, augmented on the device) and streamed image folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

#: Images whose pixels vary by less than the std divided by this, or lie so many std beside the mean, are normalised
#: with statistics of another scale: those of 0 to 255 and 0 to 1 are 255 times apart.
NEARLY_CONSTANT, FAR = 50, 100


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
    """The splits `train`, `validation` and `test` of a source; no test split, None, where the data have no such part.

    Args:
        expressions: by split; see `split_expressions`.
        pixels: how they are read; only `train` is augmented.

    Raises:
        InputError: an expression is wrong, or splits overlap.
    """
    ranges = split_ranges(split_expressions(expressions, source, where), source, f"{where}.splits")
    plain = replace(pixels, augment=())
    chosen: dict[str, Any] = {
        name: source.parts[part].select(low, high, pixels if name == "train" else plain)
        for name, (part, low, high) in ranges.items()
    }
    chosen.setdefault("test", None)
    return chosen


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
        "on_error": spec.on_error != DataSpec.on_error,
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
    _check_scale(mean, std, source, where)
    return Pixels(mean=mean, std=std, scale=source.scale, augment=spec.augment)


def _check_scale(mean: tuple[float, ...], std: tuple[float, ...], source: Source, where: str) -> None:
    """Refuse statistics that are not of these pixels: on another scale, or far from what the images have."""
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        what = f"mean {_rounded(mean)} and std {_rounded(std)} are out of range"
        raise InputError(what, where=where, allowed="finite numbers, each std above 0")
    if source.scale != 1 and max(map(abs, (*mean, *std))) > 1:
        what = f"{max(map(abs, (*mean, *std))):g} is on the scale of stored pixels, 0 to {source.scale:g}"
        raise InputError(what, where=where, allowed=f"those of pixels in [0, 1]: {_divided(mean, std, source.scale)}")
    measured = source.measured
    if measured is not None and _far_off(mean, std, *measured):
        what = f"with mean {_rounded(mean)} and std {_rounded(std)} these images are not normalised"
        allowed = f"about mean: {_rounded(measured[0])}, std: {_rounded(measured[1])}, or images on the scale of these"
        raise InputError(what, where=where, allowed=allowed)


def _divided(mean: tuple[float, ...], std: tuple[float, ...], scale: float) -> str:
    """What to write instead; only what is on the wrong scale is divided."""
    inside = {"mean": mean, "std": std}
    right = {name: [v / scale if max(map(abs, values)) > 1 else v for v in values] for name, values in inside.items()}
    return ", ".join(f"{name}: {_rounded(values)}" for name, values in right.items())


def _rounded(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"


def _far_off(mean: Sequence[float], std: Sequence[float], own: Sequence[float], spread: Sequence[float]) -> bool:
    """Whether images with these own statistics come out nearly constant, or far from 0, in each channel."""
    return all(
        s * NEARLY_CONSTANT < sigma or abs(mu - m) > FAR * sigma
        for m, sigma, mu, s in zip(mean, std, own, spread, strict=True)
    )


_SOURCES: dict[str, Callable[[DataSpec, str], Source]] = {
    "digits": digits_source,
    **{name: partial(named_source, name) for name in FILES},
    "image_folder": image_folder_source,
}
