"""The `data:` mapping of a task, and a data set before it is split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from autoprune.schema import choices, within
from autoprune.tasks.augmenting import MIXTURES, OPERATIONS
from autoprune.tasks.base import Pixels, Split


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The `data:` mapping of a task.

    Fields:
        name: `digits`, `cifar10`, `cifar100`, `mnist`, `fashion_mnist` or `image_folder`.
        function: instead of a name, `module:function` returning a mapping with train_images, train_labels, test_images,
            test_labels; images (N, H, W, C) or (N, H, W), uint8 from 0 to 255 or floating point; labels (N,),
            whole numbers from 0, or names of classes, which are numbered as they are sorted; or (N, labels) of 0
            and 1 for images with several.
        arguments: passed to `function`.
        path: `image_folder` only: the folder that holds `train`, `val` and `test` (as far as the splits name them).
        size: `image_folder` only: side of the square the network sees.
        workers: `image_folder` only: processes that decode images, at most as many as there are CPUs; None = half of
            the trial's CPUs, on a GPU all but one; at most sixteen, and none of their own where that would be one.
        on_error: `image_folder` only: what becomes of images that cannot be read, which are looked for before anything
            is trained: `raise` names the first one, `skip` leaves them out.
        splits: part expressions for `train`, `validation` and `test`, for instance `train[:-5000]`.
        augment: `flip` mirrors half of the images, anew each time; `crop` shifts an image by up to an eighth of
            its height, black beyond the border (`image_folder`: a random part,
            8 to 100 % of the area, scaled to `size`). `trivial_augment` and `rand_augment` are torchvision's
            TrivialAugmentWide and RandAugment with their defaults, after these, on the CPU. `mixup` (Beta(0.2, 0.2))
            and `cutmix` (Beta(1, 1)) mix the images of a batch; of both named, one by chance per batch.
        mean, std: normalisation per channel, for pixels scaled to [0, 1]; default: those of the data
            set; of `image_folder`, ImageNet's.
        download: let torchvision download the data set.
    """

    name: str | None = None
    function: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    size: int = field(default=224, metadata=within(1, 4096))
    workers: int | None = field(default=None, metadata=within(0, 256))
    on_error: str = field(default="raise", metadata=choices("raise", "skip"))
    splits: Mapping[str, str] = field(default_factory=dict)
    augment: tuple[str, ...] = field(default=(), metadata=choices("flip", "crop", *OPERATIONS, *MIXTURES))
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    download: bool = False


class PixelSpec(Protocol):
    """What the `data:` mappings of several kinds of tasks say of pixels; see `DataSpec`."""

    augment: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """One part of a data set as its files have it; `select` makes a split of the images [start, stop)."""

    length: int
    select: Callable[[int, int, Pixels], Split]


@dataclass(frozen=True)
class Source:
    """A data set before it is split.

    Fields:
        mean, std, scale: its own normalisation, see `Pixels`.
        statistics: where `mean` and `std` come from, in words.
        classes: their names, in the order of their numbers; () = they have none.
        measured: mean and std of its training images, where these are in memory.
        numbering: which numbers classes without names have, in words.
    """

    parts: Mapping[str, Part]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    statistics: str = "ImageNet's"
    classes: tuple[str, ...] = ()
    numbering: str = ""
    measured: tuple[tuple[float, ...], tuple[float, ...]] | None = None
