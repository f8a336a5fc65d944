"""Data sets by name, as splits: resident ones (uint8 in memory, augmented on the device) and streamed image folders."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.errors import AutopruneError, DataError, InputError, check_name, one_of
from autoprune.reading import choices, within
from autoprune.tasks.base import Pixels, Split
from autoprune.train import random_stream

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The `data:` mapping of a task.

    Fields:
        name: one of `names()`.
        function: instead of a name, `module:function` returning a mapping with train_images, train_labels, test_images,
            test_labels; images (N, H, W, C) or (N, H, W), uint8 from 0 to 255 or floating point.
        arguments: passed to `function`.
        path: `image_folder` only: the folder that holds `train`, `val` and `test` (as far as the splits name them).
        size: `image_folder` only: side of the square the network sees.
        workers: `image_folder` only: processes that decode images.
        splits: part expressions for `train`, `validation` and `test`, for instance `train[:-5000]`.
        augment: `flip` mirrors half of the images, anew each time; `crop` shifts an image by up to an eighth of
            its height, black beyond the border (`image_folder`: a random part,
            8 to 100 % of the area, scaled to `size`).
        mean, std: normalisation per channel, for pixels scaled to [0, 1]; default: the data set's own.
        download: let torchvision download the data set.
    """

    name: str | None = None
    function: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    size: int = field(default=224, metadata=within(1, 4096))
    workers: int = field(default=4, metadata=within(0, 256))
    splits: Mapping[str, str] = field(default_factory=dict)
    augment: tuple[str, ...] = field(default=(), metadata=choices("flip", "crop"))
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    download: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Resident(Split):
    """A split that lies in memory. `images`: (N, H, W, C), uint8 or float32; `labels`: int64 (N,)."""

    images: Tensor
    labels: Tensor
    pixels: Pixels

    def to(self, device: str) -> Resident:
        """The same split with its images on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def fetch(
        self, order: Tensor, batch_size: int, *, device: str, seed: int | None, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.fetch`. Where the images lie on another device, only the batches travel."""
        home = self.images.device
        draws = None if seed is None else draw(len(order), self.images.shape[1], self.pixels.augment, seed).to(home)
        order = order.to(home)
        for low in range(start * batch_size, len(order), batch_size):
            chosen = order[low : low + batch_size]
            images = self.images.index_select(0, chosen)
            if draws is not None and self.pixels.augment:
                images = shift_and_flip(images, draws[low : low + batch_size])
            yield images.to(device), self.labels.index_select(0, chosen).to(device)

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Streamed(Split):
    """A split of image files, decoded batch by batch in `workers` processes. `labels`: int64 (N,)."""

    paths: tuple[str, ...]
    labels: Tensor
    pixels: Pixels
    size: int
    workers: int

    def fetch(
        self, order: Tensor, batch_size: int, *, device: str, seed: int | None, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.fetch`."""
        from torch.utils.data import DataLoader

        chosen = order.tolist()[start * batch_size :]
        jobs = [(index, None if seed is None else (seed, start * batch_size + k)) for k, index in enumerate(chosen)]
        batches = [jobs[low : low + batch_size] for low in range(0, len(jobs), batch_size)]
        files = _Files(self.paths, self.labels, self.pixels.augment, self.size)
        for images, labels in DataLoader(files, batch_sampler=batches, num_workers=self.workers):
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def to(self, device: str) -> Streamed:
        """Itself: the images stay in their files."""
        return self

    def fingerprint(self) -> str:
        """SHA-256 over names, file sizes and labels (the pixels of a large folder are too many to read)."""
        digest = hashlib.sha256()
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            name = "/".join(Path(path).parts[-2:])
            digest.update(f"{name} {Path(path).stat().st_size} {label}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Files:
    """Image files as a map from (index, seeds of its augmentation or None) to (pixels (size, size, 3) uint8, label)."""

    paths: tuple[str, ...]
    labels: Tensor
    augment: tuple[str, ...]
    size: int

    def __getitem__(self, job: tuple[int, tuple[int, int] | None]) -> tuple[Tensor, Tensor]:
        from torchvision.datasets.folder import default_loader
        from torchvision.transforms.v2.functional import pil_to_tensor

        index, seeds = job
        image = pil_to_tensor(default_loader(self.paths[index]))  # PIL; torchvision's own decoders are going away
        stream = None if seeds is None else random_stream(*seeds)
        return self._square(image, stream).permute(1, 2, 0), self.labels[index]

    def _square(self, image: Tensor, stream: torch.Generator | None) -> Tensor:
        from torchvision.transforms.v2 import functional as T

        side = [self.size, self.size]
        if stream is not None and "crop" in self.augment:
            image = T.resized_crop(image, *_random_box(image.shape[1], image.shape[2], stream), side, antialias=True)
        else:
            image = T.center_crop(T.resize(image, [round(self.size / 0.875)], antialias=True), side)
        mirror = stream is not None and "flip" in self.augment and torch.rand((), generator=stream) < 0.5
        return T.horizontal_flip(image) if mirror else image


def _random_box(height: int, width: int, stream: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random part: 8 to 100 % of the area, 3:4 to 4:3 (Szegedy et al. 2015)."""
    share, aspect, down, right = torch.rand(4, generator=stream).tolist()
    area, ratio = height * width * (0.08 + 0.92 * share), (3 / 4) * (16 / 9) ** aspect
    box_height, box_width = min(height, round((area / ratio) ** 0.5)), min(width, round((area * ratio) ** 0.5))
    return (
        int(down * (height - box_height + 1)),
        int(right * (width - box_width + 1)),
        max(1, box_height),
        max(1, box_width),
    )


@dataclass(frozen=True)
class Part:
    """One part of a data set as its files have it; `select` makes a split of the images [start, stop)."""

    length: int
    select: Callable[[int, int, Pixels], Split]


@dataclass(frozen=True)
class Source:
    """A data set before it is split. `mean`, `std` and `scale`: its own normalisation, see `Pixels`."""

    parts: Mapping[str, Part]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0


def load_splits(spec: DataSpec, where: str) -> tuple[dict[str, Split], int]:
    """The splits `train`, `validation` and `test`, and the number of classes.

    Raises:
        InputError: the mapping is wrong. DataError: the data are missing, malformed, or their splits overlap.
    """
    source = _source(spec, where)
    ranges = _ranges(_expressions(spec, source, where), source, f"{where}.splits")
    pixels = _pixels(spec, source, where)
    plain = replace(pixels, augment=())
    splits = {
        name: source.parts[part].select(low, high, pixels if name == "train" else plain)
        for name, (part, low, high) in ranges.items()
    }
    _check_labels(splits, where)
    return splits, source.num_classes


def names() -> list[str]:
    """The names that `data.name` knows."""
    return sorted(_SOURCES)


def data_folder() -> Path:
    """$AUTOPRUNE_DATA, by default ~/.cache/autoprune."""
    return Path(os.environ.get("AUTOPRUNE_DATA") or "~/.cache/autoprune").expanduser()


def load_function(reference: str, where: str) -> Callable[..., Any]:
    """The function that `module:function` names; the current folder counts as a place for modules.

    Raises:
        InputError: no such module or function, or the module fails when it is imported.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise InputError(f"{reference!r} names no function", where=where, allowed="module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing a user's module may raise anything
        raise InputError(f"{reference!r} cannot be imported: {error}", where=where) from error
    if not callable(function):
        raise InputError(f"{reference!r} is not a function", where=where)
    return function


def _source(spec: DataSpec, where: str) -> Source:
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
        return _from_function(spec, where)
    return _SOURCES[check_name(spec.name, _SOURCES, kind="data set", where=f"{where}.name")](spec, where)


# --- splits -----------------------------------------------------------------------------------------------------------

_EXPRESSION = re.compile(r"(\w+)(?:\[(-?\d*):(-?\d*)\])?")
Range = tuple[str, int, int]


def _expressions(spec: DataSpec, source: Source, where: str) -> dict[str, str]:
    """All three expressions; without `validation`: the part of that name, else the last tenth of the training split."""
    for name in spec.splits:
        check_name(name, ("train", "validation", "test"), kind="split", where=f"{where}.splits")
    given = {"train": "train", "test": "test", **spec.splits}
    if "validation" in given:
        return given
    own = next((part for part in ("validation", "val") if part in source.parts), None)
    if own is not None:
        return {**given, "validation": own}
    part, low, high = _parse(given["train"], source, f"{where}.splits.train")
    cut = high - max(1, (high - low) // 10)
    return {**given, "train": f"{part}[{low}:{cut}]", "validation": f"{part}[{cut}:{high}]"}


def _parse(text: str, source: Source, where: str) -> Range:
    """The part and the images [low, high) that an expression such as `train[:-5000]` means."""
    match = _EXPRESSION.fullmatch(text.replace(" ", ""))
    if match is None:
        raise InputError(f"{text!r} is no split", where=where, allowed="PART, PART[a:b], PART[:-n]")
    part, low, high = match.groups()
    check_name(part, source.parts, kind="part", where=where)
    length = source.parts[part].length
    start, stop, _ = slice(int(low) if low else None, int(high) if high else None).indices(length)
    if start >= stop:
        raise InputError(f"{text!r} is empty", where=where, allowed=f"{part!r} has {length} images")
    return part, start, stop


def _ranges(expressions: Mapping[str, str], source: Source, where: str) -> dict[str, Range]:
    ranges = {name: _parse(text, source, f"{where}.{name}") for name, text in expressions.items()}
    ordered = sorted(ranges.items(), key=lambda item: item[1])
    for (first, a), (second, b) in itertools.pairwise(ordered):
        if a[0] == b[0] and b[1] < a[2]:
            both = f"{first} ({expressions[first]}) and {second} ({expressions[second]})"
            raise InputError(f"{both} share {min(a[2], b[2]) - b[1]} images", where=where, allowed="disjoint splits")
    return ranges


def _pixels(spec: DataSpec, source: Source, where: str) -> Pixels:
    if bool(spec.mean) != bool(spec.std):
        raise InputError("give both `mean` and `std`, or neither", where=where)
    mean, std = spec.mean or source.mean, spec.std or source.std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != len(source.mean):
            raise InputError(
                f"{len(values)} values", where=f"{where}.{name}", allowed=f"{len(source.mean)}, one per channel"
            )
    if min(std) <= 0:
        raise InputError(f"{min(std)!r} is out of range", where=f"{where}.std", allowed="(0, inf)")
    return Pixels(mean=mean, std=std, scale=source.scale, augment=spec.augment)


def _check_labels(splits: Mapping[str, Split], where: str) -> None:
    trained = set(splits["train"].labels.unique().tolist())
    for name in ("validation", "test"):
        strange = set(splits[name].labels.unique().tolist()) - trained
        if strange:
            what = f"{name} holds classes {sorted(strange)[:5]} that train does not"
            raise DataError(what, where=f"{where}.splits", allowed="shuffled data, or splits with the same classes")


# --- arrays -----------------------------------------------------------------------------------------------------------


def _from_arrays(
    arrays: Mapping[str, Any], where: str, statistics: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> Source:
    """A source from arrays PART_images (N, H, W[, C]), PART_labels (N,); statistics default to the training images'."""
    parts = sorted({key.removesuffix("_images") for key in arrays if key.endswith("_images")})
    for part in {"train", "test", *parts}:
        for key in (f"{part}_images", f"{part}_labels"):
            if key not in arrays:
                raise DataError(
                    f"no array {key!r}", where=where, allowed="train_images, train_labels, test_images, test_labels"
                )
    tensors = {part: _tensors(arrays[f"{part}_images"], arrays[f"{part}_labels"], f"{where}: {part}") for part in parts}
    for part, (images, _) in tensors.items():
        if images.shape[1:] != tensors["train"][0].shape[1:] or images.dtype != tensors["train"][0].dtype:
            raise DataError(
                f"{part} images are {_kind(images)}", where=where, allowed=f"as train: {_kind(tensors['train'][0])}"
            )
    train, scale = tensors["train"][0], 255.0 if tensors["train"][0].dtype == torch.uint8 else 1.0
    mean, std = statistics or measure(train, scale)
    classes = 1 + max(int(labels.max()) for _, labels in tensors.values())
    resident = {part: Part(len(labels), partial(_slice, images, labels)) for part, (images, labels) in tensors.items()}
    return Source(resident, classes, mean, std, scale)


def _kind(images: Tensor) -> str:
    return f"{tuple(images.shape[1:])} {images.dtype}"


def _slice(images: Tensor, labels: Tensor, low: int, high: int, pixels: Pixels) -> Resident:
    return Resident(images=images[low:high], labels=labels[low:high], pixels=pixels)


def _tensors(images: Any, labels: Any, where: str) -> tuple[Tensor, Tensor]:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        raise DataError(
            f"images are {images.dtype} {images.shape}",
            where=where,
            allowed="uint8 or float, (N, H, W) or (N, H, W, C)",
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or labels.min() < 0:
        raise DataError(
            f"labels are {labels.dtype} {labels.shape}", where=where, allowed=f"whole numbers from 0, ({len(images)},)"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise DataError("images hold NaN or infinity", where=where)
    pixels = images if images.dtype == np.uint8 else images.astype(np.float32)
    # copied where read-only (Ray's object store, memory maps): from_numpy would write through to it silently
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])), torch.from_numpy(labels.astype(np.int64))


def measure(images: Tensor, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of (N, H, W, C) pixels divided by `scale`; the std of a constant channel is 1."""
    channels = images.reshape(-1, images.shape[-1])
    mean, square = (
        torch.zeros(channels.shape[1], dtype=torch.float64),
        torch.zeros(channels.shape[1], dtype=torch.float64),
    )
    for block in channels.split(2**22):
        values = block.double() / scale
        mean += values.sum(0) / len(channels)
        square += values.square().sum(0) / len(channels)
    std = (square - mean.square()).clamp_min(0).sqrt()
    return tuple(mean.tolist()), tuple(torch.where(std > 1e-6, std, 1.0).tolist())


# --- the data sets ----------------------------------------------------------------------------------------------------


def _from_function(spec: DataSpec, where: str) -> Source:
    function = load_function(str(spec.function), f"{where}.function")
    try:
        arrays = function(**spec.arguments)
    except AutopruneError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise DataError(f"{spec.function} failed: {type(error).__name__}: {error}", where=where) from error
    if not isinstance(arrays, Mapping):
        raise DataError(
            f"{spec.function} returns a {type(arrays).__name__}", where=where, allowed="a mapping of arrays"
        )
    return _from_arrays(arrays, str(spec.function), None)


def _digits(spec: DataSpec, where: str) -> Source:
    """scikit-learn's 1,797 real 8x8 digits: 1,197 train, 300 validation, 300 test, each with the same class shares."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
    rest, test = train_test_split(np.arange(len(labels)), test_size=300, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=300, stratify=labels[rest], random_state=0)
    parts = {"train": train, "validation": validation, "test": test}
    arrays = {f"{part}_images": images[chosen] for part, chosen in parts.items()}
    return _from_arrays(arrays | {f"{part}_labels": labels[chosen] for part, chosen in parts.items()}, "digits", None)


# Mean and std of the training pixels, rounded as they are usually quoted; torchvision class of the same data.
_FILES = {
    "cifar10": ("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ("CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion_mnist": ("FashionMNIST", (0.2860,), (0.3530,)),
    "mnist": ("MNIST", (0.1307,), (0.3081,)),
}


def _named(name: str, spec: DataSpec, where: str) -> Source:
    """NAME.npz in the data folder, else torchvision's own layout there."""
    file = data_folder() / f"{name}.npz"
    torchvision_name, mean, std = _FILES[name]
    arrays = _read_npz(file) if file.is_file() else _read_torchvision(name, torchvision_name, spec.download)
    return _from_arrays(arrays, str(file if file.is_file() else data_folder()), (mean, std))


def _read_npz(file: Path) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # zip, header and pickle errors alike
        raise DataError(f"not a readable .npz file: {error}", where=str(file)) from error


def _read_torchvision(name: str, torchvision_name: str, download: bool) -> dict[str, Any]:
    from torchvision import datasets

    arrays: dict[str, Any] = {}
    try:
        for part in ("train", "test"):
            kind = getattr(datasets, torchvision_name)
            found = kind(root=str(data_folder()), train=part == "train", download=download)
            arrays[f"{part}_images"], arrays[f"{part}_labels"] = np.asarray(found.data), np.asarray(found.targets)
    except (RuntimeError, OSError) as error:
        layout = (
            "cifar-10-batches-py"
            if name == "cifar10"
            else "cifar-100-python"
            if name == "cifar100"
            else f"{torchvision_name}/raw"
        )
        reason = f" ({error})" if download else ""
        raise DataError(
            f"no data set {name!r}{reason}",
            where=str(data_folder()),
            allowed=f"{name}.npz or {layout}/ there, another folder by $AUTOPRUNE_DATA, or `download: true`",
        ) from error
    return arrays


def _image_folder(spec: DataSpec, where: str) -> Source:
    """torchvision's ImageFolder layout: PATH/PART/CLASS/*.jpg; the classes are those of PATH/train, sorted by name."""
    if spec.path is None:
        raise InputError(
            "missing key 'path'", where=where, allowed="a folder with train/CLASS/*.jpg and val/CLASS/*.jpg"
        )
    root = Path(spec.path).expanduser()
    root = root if root.is_absolute() or root.is_dir() else data_folder() / root
    parts = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if "train" not in parts:
        raise DataError(
            "no folder 'train' with images",
            where=str(root),
            allowed="train/CLASS/*.jpg, val/CLASS/*.jpg, test/CLASS/*.jpg",
        )
    listed = {part: _list_folder(root / part) for part in parts if part in ("train", "val", "test")}
    classes = listed["train"][0]
    for part, (names, _) in listed.items():
        if names != classes:
            raise DataError(
                f"{part} has other classes than train", where=str(root), allowed="the same folders in each part"
            )
    make = {part: Part(len(files), partial(_files, files, spec)) for part, (_, files) in listed.items()}
    return Source(make, len(classes), IMAGENET_MEAN, IMAGENET_STD)


def _list_folder(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except (OSError, RuntimeError) as error:
        raise DataError(f"no images: {error}", where=str(folder), allowed="CLASS/*.jpg") from error
    # every class's files come in one block; an order that mixes them lets `train[:-5000]` mean a fair sample
    mixed = torch.randperm(len(found.samples), generator=random_stream(0)).tolist()
    return found.classes, [found.samples[i] for i in mixed]


def _files(files: list[tuple[str, int]], spec: DataSpec, low: int, high: int, pixels: Pixels) -> Streamed:
    paths, labels = zip(*files[low:high], strict=True)
    return Streamed(paths=paths, labels=torch.tensor(labels), pixels=pixels, size=spec.size, workers=spec.workers)


_SOURCES: dict[str, Callable[[DataSpec, str], Source]] = {
    "digits": _digits,
    **{name: partial(_named, name) for name in _FILES},
    "image_folder": _image_folder,
}
