"""Image folders: files that are decoded batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from autoprune.errors import DataError, InputError, first_line
from autoprune.tasks.augmenting import operated
from autoprune.tasks.base import LabelledImages, Pixels
from autoprune.tasks.data_spec import DataSpec, Part, Source
from autoprune.tasks.file_batches import decoded_batches
from autoprune.tasks.image_files import readable
from autoprune.tasks.user_code import data_folder
from autoprune.training.processes import ALONE, Processes
from autoprune.training.seeds import random_stream

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, eq=False)
class Streamed(LabelledImages):
    """A split of image files, decoded batch by batch; `workers`: see `decoded_batches`; `labels`: int64 (N,)."""

    paths: tuple[str, ...]
    labels: Tensor
    pixels: Pixels
    size: int
    workers: int | None
    processes: Processes = ALONE

    def fetch(
        self, order: Tensor, batch_size: int, *, device: str, seed: int | None, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `LabelledImages.fetch`."""
        files = ImageFiles(self.paths, self.labels, self.pixels.augment, self.size)
        options: dict[str, Any] = {"workers": self.workers, "seed": seed, "start": start, "processes": self.processes}
        found = decoded_batches(files, order, batch_size, default_collate, device=device, **options)
        for images, labels in found:
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def to(self, device: str) -> Streamed:
        """Itself: the images stay in their files."""
        return self

    def of_process(self, processes: Processes) -> Streamed:
        """See `Split.of_process`: other images are not decoded."""
        return replace(self, processes=processes)

    def fingerprint(self) -> str:
        """SHA-256 over names, file sizes and labels (the pixels of a large folder are too many to read)."""
        digest = hashlib.sha256()
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            name = "/".join(Path(path).parts[-2:])
            digest.update(f"{name} {Path(path).stat().st_size} {label}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class ImageFiles:
    """Reads image files as (pixels (size, size, 3) uint8, label)."""

    paths: tuple[str, ...]
    labels: Tensor
    augment: tuple[str, ...]
    size: int

    def name(self, index: int) -> str:
        """See `Decoder.name`."""
        return self.paths[index]

    def decode(self, index: int, stream: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """See `Decoder.decode`."""
        return self._cropped_square(read_image(self.paths[index]), stream).permute(1, 2, 0), self.labels[index]

    def _cropped_square(self, image: Tensor, stream: torch.Generator | None) -> Tensor:
        from torchvision.transforms.v2 import functional as T

        side = [self.size, self.size]
        if stream is not None and "crop" in self.augment:
            image = T.resized_crop(image, *random_box(image.shape[1], image.shape[2], stream), side, antialias=True)
        else:
            image = T.center_crop(T.resize(image, [round(self.size / 0.875)], antialias=True), side)
        mirror = stream is not None and "flip" in self.augment and torch.rand((), generator=stream) < 0.5
        image = T.horizontal_flip(image) if mirror else image
        return image if stream is None else operated(image, self.augment, stream)


def read_image(path: str) -> Tensor:
    """The pixels of an image file, uint8 (3, H, W)."""
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms.v2.functional import pil_to_tensor

    image: Tensor = pil_to_tensor(default_loader(path))  # PIL; torchvision's own decoders are going away
    return image


def random_box(height: int, width: int, stream: torch.Generator, least: float = 0.08) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random part: `least` to 1 of the area, 3:4 to 4:3 (Szegedy et al. 2015)."""
    share, aspect, down, right = torch.rand(4, generator=stream).tolist()
    area, ratio = height * width * (least + (1 - least) * share), (3 / 4) * (16 / 9) ** aspect
    box_height, box_width = min(height, round((area / ratio) ** 0.5)), min(width, round((area * ratio) ** 0.5))
    return (
        int(down * (height - box_height + 1)),
        int(right * (width - box_width + 1)),
        max(1, box_height),
        max(1, box_width),
    )


def image_folder_source(spec: DataSpec, where: str) -> Source:
    """torchvision's ImageFolder layout: PATH/PART/CLASS/*.jpg; the classes are those of PATH/train, sorted by name."""
    if spec.path is None:
        raise InputError(
            "missing key 'path'", where=where, allowed="a folder with train/CLASS/*.jpg and val/CLASS/*.jpg"
        )
    root = folder_of(spec.path)
    parts = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if "train" not in parts:
        found = f"; there are {', '.join(parts[:5])}" if parts else "" if root.is_dir() else "; there is no such folder"
        raise DataError(
            f"no folder 'train' with images{found}",
            where=str(root),
            allowed="train/CLASS/*.jpg, val/CLASS/*.jpg, test/CLASS/*.jpg",
        )
    listed = {part: _list_folder(root / part) for part in parts if part in ("train", "val", "test")}
    classes = listed["train"][0]
    if len(classes) < 2:
        allowed = "two classes or more, a folder of images each"
        raise DataError(f"the only class is {classes[0]!r}", where=str(root / "train"), allowed=allowed)
    make = {}
    numbered = {part: _as_in_training(files, names, classes, root / part) for part, (names, files) in listed.items()}
    for part, files in numbered.items():
        clean = readable(files, lambda file: file[:1], on_error=spec.on_error, where=str(root / part))
        make[part] = Part(len(clean), partial(_streamed_part, clean, spec))
    return Source(make, len(classes), IMAGENET_MEAN, IMAGENET_STD, classes=tuple(classes))


def _as_in_training(
    files: list[tuple[str, int]], names: list[str], classes: list[str], folder: Path
) -> list[tuple[str, int]]:
    """The files with the numbers that their classes have in training: a part may lack some."""
    unknown = sorted(set(names) - set(classes))
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        what = f"classes that train has no folder of: {', '.join(unknown[:3])}{more}"
        raise DataError(what, where=str(folder), allowed=f"folders of train: {', '.join(classes)}")
    number = {name: place for place, name in enumerate(classes)}
    return [(path, number[names[label]]) for path, label in files]


def folder_of(path: str) -> Path:
    """The folder as given, or inside the data folder where a relative one is not here."""
    root = Path(path).expanduser()
    return root if root.is_absolute() or root.is_dir() else data_folder() / root


def _list_folder(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except (OSError, RuntimeError) as error:
        raise DataError(_missing_images(folder, error), where=str(folder), allowed="CLASS/*.jpg") from error
    # every class's files come in one block; an order that mixes them lets `train[:-5000]` mean a fair sample
    mixed = torch.randperm(len(found.samples), generator=random_stream(0)).tolist()
    return found.classes, [found.samples[i] for i in mixed]


def _missing_images(folder: Path, error: Exception) -> str:
    """Which class has no image, or that there are no classes; torchvision says it with its list of endings."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    empty = [entry.name for entry in classes if not any(entry.rglob("*"))]
    if not classes:
        return "no folders of classes"
    return f"no images of class {', '.join(empty[:3])}" if empty else f"no images: {first_line(error)}"


def _streamed_part(files: list[tuple[str, int]], spec: DataSpec, low: int, high: int, pixels: Pixels) -> Streamed:
    paths, labels = zip(*files[low:high], strict=True)
    return Streamed(paths=paths, labels=torch.tensor(labels), pixels=pixels, size=spec.size, workers=spec.workers)
