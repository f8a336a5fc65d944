"""Data sets that fit into memory: arrays from functions, files and packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.errors import DataError, first_line
from autoprune.tasks.arrays import check_varied, checked_images, checked_labels
from autoprune.tasks.base import Pixels
from autoprune.tasks.data_spec import DataSpec, Part, Source
from autoprune.tasks.resident import Resident
from autoprune.tasks.user_code import call, data_folder, load_function

#: Where mean and std of pixels come from, unless the user gives them.
COMPUTED, QUOTED = "computed from the training images", "those usually quoted for this data set"


def source_of_arrays(
    arrays: Mapping[str, Any], where: str, statistics: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> Source:
    """A source from arrays PART_images (N, H, W[, C]), PART_labels (N,) or (N, labels) of 0 and 1.

    Statistics default to the training images'. Labels that are text become numbers, see `number_names`.
    """
    parts = sorted({key.removesuffix("_images") for key in arrays if key.endswith("_images")})
    for part in ("train", "test", *parts):
        for key in (f"{part}_images", f"{part}_labels"):
            if key not in arrays:
                found = f"; there are {', '.join(map(str, arrays))}" if arrays else "; there are none"
                raise DataError(
                    f"no array {key!r}{found}",
                    where=where,
                    allowed="train_images, train_labels, test_images, test_labels",
                )
    labels_of, classes = number_names({part: arrays[f"{part}_labels"] for part in parts}, where)
    tensors: dict[str, tuple[Tensor, Tensor]] = {}
    for part in parts:
        images = checked_images(arrays[f"{part}_images"], f"{where}: {part}")
        tensors[part] = images, checked_labels(labels_of[part], len(images), f"{where}: {part}")
    check_varied(tensors["train"][0], f"{where}: train")
    for part, (images, _) in tensors.items():
        if images.shape[1:] != tensors["train"][0].shape[1:] or images.dtype != tensors["train"][0].dtype:
            raise DataError(
                f"{part} images are {_describe_images(images)}",
                where=where,
                allowed=f"as train: {_describe_images(tensors['train'][0])}",
            )
    train, scale = tensors["train"][0], 255.0 if tensors["train"][0].dtype == torch.uint8 else 1.0
    mean, std = statistics or channel_statistics(train, scale)
    resident = {
        part: Part(len(labels), partial(_resident_part, images, labels)) for part, (images, labels) in tensors.items()
    }
    labels = [labels for _, labels in tensors.values()]
    count = len(classes) or _count_classes(labels, where)
    if count < 2 and labels[0].dim() == 1:
        what = f"all labels are {classes[0] if classes else 0!r}"
        raise DataError(what, where=where, allowed="two classes or more")
    source = Source(resident, count, mean, std, scale, QUOTED if statistics else COMPUTED, classes)
    named = f"{', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''}"
    numbering = named or (_numbering(labels) if labels[0].dim() == 1 else "")
    return replace(source, numbering=numbering, measured=(mean, std))


def _numbering(labels: Sequence[Tensor]) -> str:
    """Which numbers the classes have, in words; of use where a network has another number of outputs."""
    found = torch.cat(list(labels)).unique()
    low, high, count = int(found[0]), int(found[-1]), len(found)
    if low > 0:
        return f"labels go from {low} to {high}, and classes count from 0: labels - {low}, if there is no class 0"
    gaps = "" if count == high + 1 else f", {count} different ones"
    return f"labels go from {low} to {high}{gaps}"


def _count_classes(labels: Sequence[Tensor], where: str) -> int:
    """Number of classes, or of labels where images have several, over all parts."""
    if len({tuple(found.shape[1:]) for found in labels}) > 1:
        raise DataError("the parts have another number of labels per image", where=where, allowed="the same in each")
    return max(found.shape[1] if found.dim() == 2 else 1 + int(found.max()) for found in labels)


def number_names(labels: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Labels by part, with a number in place of each name, and the names in the order of their numbers: sorted.

    Labels that are numbers stay as they are, without names.

    Raises:
        DataError: the labels of some parts are names, of others not.
    """
    named = [part for part, found in labels.items() if _are_names(found)]
    if not named:
        for part, found in labels.items():
            if np.asarray(found).dtype.kind in "UST" and np.ndim(found) == 1:
                allowed = "whole numbers from 0, or a name for each image, (N,)"
                raise DataError("labels are text beside something else", where=f"{where}: {part}", allowed=allowed)
        return dict(labels), ()
    for part in labels:
        if part not in named:
            what = f"the labels of {named[0]} are text, those of {part} are not, or not all"
            raise DataError(what, where=where, allowed="names in each part, or whole numbers in each")
    classes = sorted({str(name) for part in named for name in labels[part]})
    number = {name: place for place, name in enumerate(classes)}
    return {part: np.array([number[str(name)] for name in labels[part]]) for part in labels}, tuple(classes)


def _are_names(labels: Any) -> bool:
    """Whether each label is text; an array of a list would make text of numbers that stand beside text."""
    array = np.asarray(labels)
    return array.ndim == 1 and array.dtype.kind in "UOT" and len(array) > 0 and all(isinstance(x, str) for x in labels)


def _describe_images(images: Tensor) -> str:
    return f"{tuple(images.shape[1:])} {images.dtype}"


def _resident_part(images: Tensor, labels: Tensor, low: int, high: int, pixels: Pixels) -> Resident:
    return Resident(images=images[low:high], labels=labels[low:high], pixels=pixels)


def channel_statistics(images: Tensor, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of (N, H, W, C) pixels divided by `scale`; the std of a constant channel is 1.

    They have the digits of float32, with which pixels are normalised: further ones depend on how many threads add, and
    are in the name under which a network that was trained on them is kept.
    """
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
    return tuple(mean.float().tolist()), tuple(torch.where(std > 1e-6, std, 1.0).float().tolist())


def source_of_function(spec: DataSpec, where: str) -> Source:
    """What the user's `function` returns, see `DataSpec`."""
    function = load_function(str(spec.function), f"{where}.function")
    arrays = call(str(spec.function), function, spec.arguments, where=where, kind=DataError)
    if not isinstance(arrays, Mapping):
        raise DataError(
            f"{spec.function} returns a {type(arrays).__name__}",
            where=where,
            allowed="a mapping with train_images, train_labels, test_images, test_labels",
        )
    return source_of_arrays(arrays, str(spec.function), None)


def digits_by_part() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """scikit-learn's 1,797 real 8x8 digits: 1,197 train, 300 validation, 300 test, each with the same class shares.

    Of each part the images, (N, 8, 8) from 0 to 255, and the labels, (N,).
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
    rest, test = train_test_split(np.arange(len(labels)), test_size=300, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=300, stratify=labels[rest], random_state=0)
    parts = {"train": train, "validation": validation, "test": test}
    return {part: (images[chosen], labels[chosen].astype(np.int64)) for part, chosen in parts.items()}


def digits_source(spec: DataSpec, where: str) -> Source:
    """See `digits_by_part`."""
    arrays: dict[str, Any] = {}
    for part, (images, labels) in digits_by_part().items():
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images, labels
    return source_of_arrays(arrays, "digits", None)


# Mean and std of the training pixels, rounded as they are usually quoted; torchvision class of the same data.
FILES = {
    "cifar10": ("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ("CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion_mnist": ("FashionMNIST", (0.2860,), (0.3530,)),
    "mnist": ("MNIST", (0.1307,), (0.3081,)),
}


def named_source(name: str, spec: DataSpec, where: str) -> Source:
    """NAME.npz in the data folder, else torchvision's own layout there."""
    file = data_folder() / f"{name}.npz"
    torchvision_name, mean, std = FILES[name]
    arrays = _read_npz(file) if file.is_file() else _read_torchvision(name, torchvision_name, spec.download)
    return source_of_arrays(arrays, str(file if file.is_file() else data_folder()), (mean, std))


def _read_npz(file: Path) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # zip, header and pickle errors alike
        allowed = "what numpy.savez has written: train_images, train_labels, test_images, test_labels"
        raise DataError(f"not a readable .npz file: {first_line(error)}", where=str(file), allowed=allowed) from error


def _read_torchvision(name: str, torchvision_name: str, download: bool) -> dict[str, Any]:
    from torchvision import datasets

    layout = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(name, f"{torchvision_name}/raw")
    allowed = f"{name}.npz or {layout}/ there, another folder by $AUTOPRUNE_DATA, or `download: true`"
    if not download and not (data_folder() / layout).is_dir():  # torchvision would make folders in which to look
        raise DataError(f"no data set {name!r}", where=str(data_folder()), allowed=allowed)
    arrays: dict[str, Any] = {}
    try:
        for part in ("train", "test"):
            kind = getattr(datasets, torchvision_name)
            found = kind(root=str(data_folder()), train=part == "train", download=download)
            arrays[f"{part}_images"], arrays[f"{part}_labels"] = np.asarray(found.data), np.asarray(found.targets)
    except (RuntimeError, OSError) as error:
        what = f"no data set {name!r} ({first_line(error)})"
        raise DataError(what, where=str(data_folder()), allowed=allowed) from error
    return arrays
