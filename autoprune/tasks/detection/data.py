"""Detection data sets: COCO's format, Pascal VOC's layout, and digit_scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from autoprune.errors import DataError, InputError
from autoprune.schema import choices, within
from autoprune.tasks import digit_scenes
from autoprune.tasks.base import Pixels
from autoprune.tasks.data import select_splits
from autoprune.tasks.data_spec import Part, Source
from autoprune.tasks.detection import coco, voc
from autoprune.tasks.detection.annotations import AnnotatedImage, checked
from autoprune.tasks.detection.splits import ImagesWithBoxes, ResidentBoxes, StreamedBoxes
from autoprune.tasks.digit_scenes import Scenes, make_scenes
from autoprune.tasks.image_files import readable
from autoprune.tasks.image_folder import folder_of
from autoprune.tasks.splits import check_disjoint


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """Where a part of a COCO data set lies, relative to `path`.

    Fields:
        annotations: its JSON file.
        images: the folder of its images.
    """

    annotations: str
    images: str


@dataclass(frozen=True, kw_only=True)
class BoxDataSpec:
    """The `data:` mapping of a detection task.

    Fields:
        name: `digit_scenes`, `coco` (see `parts`) or `voc` (JPEGImages, Annotations, ImageSets/Main).
        arguments: `digit_scenes` only: how its scenes are drawn.
        path: the folder of the other two, absolute, in the current folder or in $AUTOPRUNE_DATA.
        parts: `coco` only: the files of each part; by default annotations/instances_NAME.json beside NAME/, and
            PART/_annotations.coco.json.
        labels: `coco` only: `in_order` counts the categories from 1; `category` takes their own numbers, as
            torchvision's weights for COCO do.
        classes: `voc` only: the names of the classes, in order; by default all that its annotations hold, by name.
        drop_degenerate: leave out boxes without a width or a height; otherwise they are an error.
        workers: processes that decode images, at most as many as there are CPUs; None = half of the
            trial's CPUs, on a GPU all but one; at most sixteen, and none of their own where that would be one.
        on_error: what becomes of images that cannot be read, which are looked for before anything is trained: `raise`
            names the first one, `skip` leaves them out.
        splits: part expressions for `train`, `validation` and `test`, for instance `train[:-500]`.
        augment: image and boxes together: `flip` mirrors half of the images; `scale` zooms out to a half and in to half
            as much again.
    """

    name: str = field(metadata=choices("digit_scenes", "coco", "voc"))
    arguments: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    parts: Mapping[str, PartSpec] = field(default_factory=dict)
    labels: str = field(default="in_order", metadata=choices("in_order", "category"))
    classes: tuple[str, ...] = ()
    drop_degenerate: bool = False
    workers: int | None = field(default=None, metadata=within(0, 256))
    on_error: str = field(default="raise", metadata=choices("raise", "skip"))
    splits: Mapping[str, str] = field(default_factory=dict)
    augment: tuple[str, ...] = field(default=(), metadata=choices("flip", "scale"))


#: What each data set reads beside name, splits and augment.
_READ = {
    "digit_scenes": {"arguments"},
    "coco": {"path", "parts", "labels", "drop_degenerate", "workers", "on_error"},
    "voc": {"path", "classes", "drop_degenerate", "workers", "on_error"},
}


def load_splits(spec: BoxDataSpec, where: str) -> tuple[dict[str, ImagesWithBoxes], tuple[str, ...]]:
    """The splits `train`, `validation` and `test`, and the names of the classes; the label of the first is 1.

    Raises:
        InputError: the mapping is wrong. DataError: the data are missing, malformed, or their splits overlap.
    """
    _check_keys(spec, where)
    source, classes = _SOURCES[spec.name](spec, where)
    plain = Pixels(mean=source.mean, std=source.std, scale=source.scale, augment=spec.augment)
    splits = select_splits(spec.splits, source, plain, where)
    files = {
        name: [image.file for image in split.annotated]
        for name, split in splits.items()
        if isinstance(split, StreamedBoxes)
    }
    check_disjoint(files, f"{where}.splits")
    for name, split in splits.items():
        if split is not None and not split.objects():
            raise DataError(f"{name} holds no object", where=f"{where}.splits", allowed="at least one per split")
    return splits, classes


def _check_keys(spec: BoxDataSpec, where: str) -> None:
    """Refuse what the data set does not read."""
    for key in set().union(*_READ.values()) - _READ[spec.name]:
        if getattr(spec, key) != getattr(BoxDataSpec(name=spec.name), key):
            raise InputError(f"{key!r} means nothing to {spec.name}", where=where)
    if "path" in _READ[spec.name] and spec.path is None:
        raise InputError("missing key 'path'", where=where, allowed="the folder of the data")


def _source(parts: Mapping[str, Part], classes: Sequence[str], channels: int = 3) -> Source:
    """Detectors normalise by themselves: their inputs are stored pixels as shares of white."""
    return Source(parts, len(classes), (0.0,) * channels, (1.0,) * channels)


def _digit_scenes(spec: BoxDataSpec, where: str) -> tuple[Source, tuple[str, ...]]:
    scenes = make_scenes(spec.arguments, f"{where}.arguments")
    parts = {name: Part(len(part.images), partial(_resident_part, part)) for name, part in scenes.items()}
    return _source(parts, digit_scenes.CLASSES, scenes["train"].images.shape[3]), digit_scenes.CLASSES


def _resident_part(scenes: Scenes, low: int, high: int, pixels: Pixels) -> ResidentBoxes:
    pairs = zip(scenes.boxes[low:high], scenes.labels[low:high], strict=True)
    targets = tuple({"boxes": boxes, "labels": labels, "iscrowd": torch.zeros_like(labels)} for boxes, labels in pairs)
    images = scenes.images[low:high].permute(0, 3, 1, 2).contiguous()
    return ResidentBoxes(images=images, targets=targets, augment=pixels.augment)


def _coco(spec: BoxDataSpec, where: str) -> tuple[Source, tuple[str, ...]]:
    root = folder_of(str(spec.path))
    given = {name: (root / part.annotations, root / part.images) for name, part in spec.parts.items()}
    files = given or coco.find_parts(root)
    if not files:
        allowed = "annotations/instances_NAME.json and NAME/, PART/_annotations.coco.json, or `parts`"
        raise DataError("no annotations in COCO's format", where=str(root), allowed=allowed)
    by_number = spec.labels == "category"
    found = {name: coco.read_part(*pair, by_number=by_number) for name, pair in files.items()}
    (first, (_, classes)), *others = found.items()
    for name, (_, own) in others:
        if own != classes:
            allowed = "the same categories in each part"
            raise DataError(f"{name} has other categories than {first}", where=str(root), allowed=allowed)
    images = {name: images for name, (images, _) in found.items()}
    return _file_source(images, classes, spec, str(root)), classes


def _voc(spec: BoxDataSpec, where: str) -> tuple[Source, tuple[str, ...]]:
    root = folder_of(str(spec.path))
    lists = voc.find_parts(root)
    if not lists:
        allowed = "ImageSets/Main/train.txt, JPEGImages, Annotations"
        raise DataError("no lists of images in VOC's layout", where=str(root), allowed=allowed)
    classes = spec.classes or voc.read_classes(root, list(lists.values()))
    images = {name: voc.read_part(root, file, classes) for name, file in lists.items()}
    return _file_source(images, classes, spec, str(root)), classes


def _file_source(
    images: Mapping[str, list[AnnotatedImage]], classes: Sequence[str], spec: BoxDataSpec, where: str
) -> Source:
    clean = {
        name: readable(found, lambda image: (image.file,), on_error=spec.on_error, where=f"{where}: {name}")
        for name, found in checked(images, classes, drop_degenerate=spec.drop_degenerate, where=where).items()
    }
    parts = {name: Part(len(found), partial(_streamed_part, found, spec.workers)) for name, found in clean.items()}
    return _source(parts, classes)


def _streamed_part(
    images: list[AnnotatedImage], workers: int | None, low: int, high: int, pixels: Pixels
) -> StreamedBoxes:
    return StreamedBoxes.of(tuple(images[low:high]), pixels.augment, workers)


_SOURCES: dict[str, Callable[[BoxDataSpec, str], tuple[Source, tuple[str, ...]]]] = {
    "digit_scenes": _digit_scenes,
    "coco": _coco,
    "voc": _voc,
}
