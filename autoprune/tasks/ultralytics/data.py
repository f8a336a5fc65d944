"""Images and boxes as Ultralytics' YAML files say, read by their dataset, letterboxed and augmented by their code."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader

from autoprune.errors import DataError, first_line
from autoprune.schema import within
from autoprune.tasks.base import Split
from autoprune.tasks.file_batches import decoding_processes
from autoprune.tasks.own.loaders import LoaderSplit
from autoprune.tasks.splits import check_disjoint
from autoprune.tasks.user_code import data_folder
from autoprune.training.processes import Processes

Target = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class YoloDataSpec:
    """The `data:` mapping of a task of Ultralytics.

    Fields:
        yaml: their data file: train, val, perhaps test, names, path; absolute, in the current folder or in
            $AUTOPRUNE_DATA. Its `path` may also be relative to it, and is its folder if it has none. Their dataset
            writes what it has read of labels/train to labels/train.cache, and mends JPEG files that are cut short.
        size: side in pixels of the square that images are fitted into, a multiple of the network's largest stride.
        workers: processes that decode images, at most as many as there are CPUs; None = half of the
            trial's CPUs, on a GPU all but one; at most sixteen, and none of their own where that would be one.
    """

    yaml: str
    size: int = field(default=640, metadata=within(32, 4096))
    workers: int | None = field(default=None, metadata=within(0, 256))


@dataclass(frozen=True, kw_only=True, eq=False)
class LetterboxedImages(Split):
    """One part of the data.

    A batch is images (N, C, size, size) float32 from 0 to 1, and a target per image: `boxes` float32 (n, 4), left, top,
    right, bottom in pixels of the square; `labels` int64 (n,) from 0; `iscrowd`, which is 0.

    Fields:
        plain: the images as they are. augmented: the same with their augmentation.
    """

    plain: LoaderSplit
    augmented: LoaderSplit

    def __len__(self) -> int:
        """Number of images."""
        return len(self.plain)

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, list[Target]]]:
        """See `Split.batches`."""
        split = self.plain if seed is None else self.augmented
        return split.batches(order, batch_size, device=device, seed=seed, start=start)

    def to(self, device: str) -> LetterboxedImages:
        """Itself: the images stay in their files."""
        return self

    def of_process(self, processes: Processes) -> LetterboxedImages:
        """See `LoaderSplit.of_process`."""
        plain, augmented = (split.of_process(processes) for split in (self.plain, self.augmented))
        return replace(self, plain=plain, augmented=augmented)

    def fingerprint(self) -> str:
        """See `LoaderSplit.fingerprint`."""
        return self.plain.fingerprint()


@dataclass(frozen=True, kw_only=True)
class YoloData:
    """What a data file says. `channels`: of an image; `splits`: train, validation and test, the last may be None."""

    classes: tuple[str, ...]
    channels: int
    splits: Mapping[str, LetterboxedImages | None]


def load_data(spec: YoloDataSpec, settings: Any, where: str) -> YoloData:
    """Read a data file and the labels that it names.

    Args:
        settings: theirs; sizes and augmentation are read.

    Raises:
        InputError: splits share images. DataError: the data are missing or malformed.
    """
    file = _find(spec.yaml, f"{where}.yaml")
    plain = _read_file(file)
    names = plain["names"]
    theirs = {"names": names, "nc": len(names), "channels": plain.get("channels", 3)}
    parts = {"train": "train", "validation": "val", **({"test": "test"} if plain.get("test") else {})}
    places = {name: _places(plain, part, file) for name, part in parts.items()}
    datasets = {name: _dataset(places[name], theirs, settings, f"{part} of {file}") for name, part in parts.items()}
    check_disjoint({name: dataset.im_files for name, dataset in datasets.items()}, where)
    splits = {
        name: LetterboxedImages(
            plain=_loader_split(dataset, name, spec.workers, where),
            augmented=_loader_split(_augmenting(dataset, settings), name, spec.workers, where),
        )
        for name, dataset in datasets.items()
    }
    classes = tuple(names[number] for number in range(len(names)))
    return YoloData(classes=classes, channels=theirs["channels"], splits={"test": None, **splits})


def _find(path: str, where: str) -> Path:
    for candidate in (Path(path).expanduser(), data_folder() / path):
        if candidate.exists():
            return candidate.resolve()
    allowed = f"one here or in {data_folder()} ($AUTOPRUNE_DATA); nothing is downloaded"
    raise DataError(f"no file or folder {path!r}", where=where, allowed=allowed)


def _read_file(file: Path) -> dict[str, Any]:
    """The mapping of a data file; `names` by number."""
    from ultralytics.nn.autobackend import check_class_names

    try:
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {**plain, "names": check_class_names(plain["names"]), "train": plain["train"], "val": plain["val"]}
    except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else first_line(error)
        allowed = "train, val and perhaps test: folders or lists of images; names: a list or {0: NAME, ...}; path"
        raise DataError(f"not a data file of Ultralytics: {reason}", where=str(file), allowed=allowed) from error


def _places(plain: Mapping[str, Any], part: str, file: Path) -> list[str]:
    """Folders and lists of images of a part, absolute."""
    root = file.parent / str(plain.get("path") or "")
    if not root.exists():
        root = _find(plain["path"], f"path of {file}")
    named = plain[part] if isinstance(plain[part], list) else [plain[part]]
    return [str(_find(str(root / name), f"{part} of {file}")) for name in named]


def _dataset(places: list[str], theirs: dict[str, Any], settings: Any, where: str) -> Any:
    """Their dataset of letterboxed images; raises `DataError` where it would go on without some of them."""
    from ultralytics.data.build import build_yolo_dataset

    try:
        dataset: Any = build_yolo_dataset(settings, places, 1, theirs, mode="val")
        listed = dataset.get_img_files(places)
    except Exception as error:  # theirs have no common base
        raise DataError(first_line(error), where=where) from error
    lost = sorted(set(listed) - set(dataset.im_files))
    if lost:
        allowed = f"images, and labels `class x y width height` as shares of the image, classes below {theirs['nc']}"
        raise DataError(f"{len(lost)} images or their labels are malformed: {lost[0]}", where=where, allowed=allowed)
    if not any(len(label["cls"]) for label in dataset.labels):
        raise DataError("no object", where=where, allowed="files with labels in labels/, beside images/")
    return dataset


def _augmenting(dataset: Any, settings: Any) -> Any:
    """The dataset with their augmentation."""
    twin = copy.copy(dataset)
    twin.augment = True
    # Mosaics take their other images from those that were read lately, so that a batch would depend on those before it
    # and on the process; with images in memory, as this says, from all. Nothing is kept in memory.
    twin.cache = "ram"
    twin.transforms = twin.build_transforms(copy.copy(settings))
    return twin


def _loader_split(dataset: Any, name: str, workers: int | None, where: str) -> LoaderSplit:
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=1, num_workers=decoding_processes(workers), collate_fn=_as_batch
    )
    return LoaderSplit.of(loader, name, where)


def _as_batch(items: list[dict[str, Any]]) -> tuple[Tensor, list[Target]]:
    """Their batch, its boxes image by image and in pixels; see `LetterboxedImages`."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.utils.ops import xywhn2xyxy

    batch = YOLODataset.collate_fn(items)
    images = batch["img"].float() / 255
    height, width = images.shape[2:]
    boxes, labels = xywhn2xyxy(batch["bboxes"], w=width, h=height), batch["cls"][:, 0].long()
    own = [batch["batch_idx"] == number for number in range(len(images))]
    return images, [
        {"boxes": boxes[mine], "labels": labels[mine], "iscrowd": torch.zeros_like(labels[mine])} for mine in own
    ]
