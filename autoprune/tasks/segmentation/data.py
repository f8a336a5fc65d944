"""Data sets of images and masks: folders, the layout of Pascal VOC, and digit_scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoprune.errors import DataError, InputError
from autoprune.schema import choices, within
from autoprune.tasks import digit_scenes
from autoprune.tasks.base import Pixels, Split
from autoprune.tasks.data import pixels_of, select_splits
from autoprune.tasks.data_spec import Part, Source
from autoprune.tasks.digit_scenes import Scenes, make_scenes
from autoprune.tasks.image_files import readable
from autoprune.tasks.image_folder import IMAGENET_MEAN, IMAGENET_STD, folder_of
from autoprune.tasks.segmentation.files import StreamedMasks
from autoprune.tasks.segmentation.resident import ResidentMasks
from autoprune.tasks.sources import channel_statistics
from autoprune.tasks.splits import check_disjoint
from autoprune.training.seeds import random_stream

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class MaskDataSpec:
    """The `data:` mapping of a segmentation task.

    Fields:
        name: `digit_scenes`, `mask_folder` (PATH/PART/images and PATH/PART/masks, a PNG per image; or PATH/images
            and PATH/masks as the one part `all`) or `voc` (JPEGImages, SegmentationClass, ImageSets/Segmentation).
        arguments: `digit_scenes` only: how its scenes are drawn.
        path: the folder of the other two, absolute, in the current folder or in $AUTOPRUNE_DATA.
        classes: names of the classes 0, 1, ...; needed by `mask_folder`, by default VOC's 21 for `voc`.
        size: side of the square that the network sees. An image is scaled so that its longer side fits; what lies
            beyond it is black, and ignored.
        workers: processes that decode images, at most as many as there are CPUs; None = half of the
            trial's CPUs, on a GPU all but one; at most sixteen, and none of their own where that would be one.
        on_error: what becomes of images that cannot be read, which are looked for before anything is trained: `raise`
            names the first one, `skip` leaves them out.
        splits: part expressions for `train`, `validation` and `test`, for instance `train[:-500]`.
        augment: image and mask together: `flip` mirrors half of them; `crop` takes a random part of them, in
            `digit_scenes` shifts them by up to an eighth.
        mean, std: normalisation per channel, for pixels scaled to [0, 1]; default: ImageNet's, or the scenes' own.
    """

    name: str = field(metadata=choices("digit_scenes", "mask_folder", "voc"))
    arguments: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    classes: tuple[str, ...] = ()
    size: int = field(default=256, metadata=within(1, 8192))
    workers: int | None = field(default=None, metadata=within(0, 256))
    on_error: str = field(default="raise", metadata=choices("raise", "skip"))
    splits: Mapping[str, str] = field(default_factory=dict)
    augment: tuple[str, ...] = field(default=(), metadata=choices("flip", "crop"))
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def load_splits(spec: MaskDataSpec, where: str) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits `train`, `validation` and `test`, and the names of the classes.

    Raises:
        InputError: the mapping is wrong. DataError: the data are missing, malformed, or their splits overlap.
    """
    _check_keys(spec, where)
    source, classes = _SOURCES[spec.name](spec, where)
    splits = select_splits(spec.splits, source, pixels_of(spec, source, where), where)
    files = {
        name: [image for image, _mask in split.files]
        for name, split in splits.items()
        if isinstance(split, StreamedMasks)
    }
    check_disjoint(files, f"{where}.splits")
    return splits, classes


def _check_keys(spec: MaskDataSpec, where: str) -> None:
    """Refuse what the data set does not read."""
    in_memory = spec.name == "digit_scenes"
    unread = ("path", "classes", "size", "workers", "on_error") if in_memory else ("arguments",)
    for key in unread:
        if getattr(spec, key) != getattr(MaskDataSpec(name=spec.name), key):
            raise InputError(f"{key!r} means nothing to {spec.name}", where=where)
    if not in_memory and spec.path is None:
        raise InputError("missing key 'path'", where=where, allowed="the folder of the data")


def _digit_scenes(spec: MaskDataSpec, where: str) -> tuple[Source, tuple[str, ...]]:
    scenes = make_scenes(spec.arguments, f"{where}.arguments")
    mean, std = channel_statistics(scenes["train"].images, 255.0)
    parts = {name: Part(len(part.images), partial(_resident_part, part)) for name, part in scenes.items()}
    classes = ("background", *digit_scenes.CLASSES)
    return Source(parts, len(classes), mean, std), classes


def _resident_part(scenes: Scenes, low: int, high: int, pixels: Pixels) -> ResidentMasks:
    return ResidentMasks(images=scenes.images[low:high], masks=scenes.masks[low:high], pixels=pixels)


def _mask_folder(spec: MaskDataSpec, where: str) -> tuple[Source, tuple[str, ...]]:
    if not spec.classes:
        raise InputError("missing key 'classes'", where=where, allowed="the names of the classes 0, 1, ...")
    root = folder_of(str(spec.path))
    if (root / "images").is_dir():
        return _file_source({"all": _pairs_of_folder(root)}, spec.classes, spec), spec.classes
    parts = sorted(folder.parent for folder in root.glob("*/images") if folder.is_dir())
    if not parts:
        allowed = "PART/images and PART/masks, or images and masks"
        raise DataError("no folder with images and masks", where=str(root), allowed=allowed)
    return _file_source({part.name: _pairs_of_folder(part) for part in parts}, spec.classes, spec), spec.classes


def _pairs_of_folder(folder: Path) -> list[Pair]:
    """The images of a folder, each with its mask, in an order that is mixed so that `[:-50]` means a fair sample."""
    images = sorted(file for file in (folder / "images").iterdir() if file.suffix.lower() in IMAGE_ENDINGS)
    masks = [folder / "masks" / f"{image.stem}.png" for image in images]
    _check_there(masks, "mask", str(folder / "images"), folder)
    mixed = torch.randperm(len(images), generator=random_stream(0)).tolist()
    return [(str(images[i]), str(masks[i])) for i in mixed]


def _voc(spec: MaskDataSpec, where: str) -> tuple[Source, tuple[str, ...]]:
    root = folder_of(str(spec.path))
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    if not lists:
        allowed = "ImageSets/Segmentation/train.txt, JPEGImages, SegmentationClass"
        raise DataError("no lists of images in VOC's layout", where=str(root), allowed=allowed)
    classes = spec.classes or VOC_CLASSES
    return _file_source({file.stem: _pairs_of_list(root, file) for file in lists}, classes, spec), classes


def _pairs_of_list(root: Path, file: Path) -> list[Pair]:
    names = file.read_text(encoding="utf-8").split()
    images = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    masks = [root / "SegmentationClass" / f"{name}.png" for name in names]
    _check_there(images, "image", str(file), root)
    _check_there(masks, "mask", str(file), root)
    return [(str(image), str(mask)) for image, mask in zip(images, masks, strict=True)]


def _check_there(files: Sequence[Path], what: str, listed_by: str, folder: Path) -> None:
    if not files:
        raise DataError(f"{listed_by} names no image", where=str(folder), allowed="at least one")
    missing = [file for file in files if not file.is_file()]
    if missing:
        message = f"no {what} {missing[0].name!r} ({len(missing)} of {len(files)} are missing)"
        raise DataError(message, where=str(missing[0].parent))


def _file_source(pairs: Mapping[str, list[Pair]], classes: tuple[str, ...], spec: MaskDataSpec) -> Source:
    clean = {
        name: readable(files, lambda pair: pair, on_error=spec.on_error, where=name) for name, files in pairs.items()
    }
    parts = {
        name: Part(len(files), partial(_streamed_part, files, len(classes), spec)) for name, files in clean.items()
    }
    return Source(parts, len(classes), IMAGENET_MEAN, IMAGENET_STD)


def _streamed_part(
    files: list[Pair], classes: int, spec: MaskDataSpec, low: int, high: int, pixels: Pixels
) -> StreamedMasks:
    chosen = tuple(files[low:high])
    return StreamedMasks(files=chosen, classes=classes, size=spec.size, workers=spec.workers, pixels=pixels)


_SOURCES: dict[str, Callable[[MaskDataSpec, str], tuple[Source, tuple[str, ...]]]] = {
    "digit_scenes": _digit_scenes,
    "mask_folder": _mask_folder,
    "voc": _voc,
}
