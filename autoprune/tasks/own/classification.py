"""Classification of users' own datasets and loaders: labels are checked, loss and metric are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from autoprune.errors import DataError, InputError
from autoprune.schema import expect_mapping, read_value, within
from autoprune.tasks import zoo
from autoprune.tasks.base import Labelled
from autoprune.tasks.classification import Classification, check_keys, judged_by
from autoprune.tasks.dense_model import read_dense_model
from autoprune.tasks.own.batches import BatchParts
from autoprune.tasks.own.loaders import LoaderSplit
from autoprune.tasks.own.task import read_data
from autoprune.training.batch_structure import describe_structure, moved
from autoprune.training.processes import Processes
from autoprune.training.protocols import Batch

#: What the transforms and subsets of the user's own datasets do.
BY_DATASETS = {"augment": "transforms", "mean": "transforms", "std": "transforms", "splits": "a dataset for each split"}


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledItems(Labelled):
    """The items of a user's loader as inputs and labels.

    Fields:
        parts: which of a batch is which.
        classes: number of classes, or of labels where images have several.
        several: whether images have several labels.
    """

    items: LoaderSplit
    parts: BatchParts
    classes: int
    several: bool

    def __len__(self) -> int:
        """Number of items."""
        return len(self.items)

    def to(self, device: str) -> LabelledItems:
        """Itself: items are made one by one."""
        return self

    def of_process(self, processes: Processes) -> LabelledItems:
        """See `LoaderSplit.of_process`."""
        return replace(self, items=self.items.of_process(processes))

    def fingerprint(self) -> str:
        """See `LoaderSplit.fingerprint`."""
        return self.items.fingerprint()

    def learning_facts(self) -> list[Any]:
        """The items; what their transforms do is only known by what comes out."""
        return [self.fingerprint()]

    def input_facts(self) -> dict[str, Any]:
        """Nothing: how stored data become inputs is in the user's transforms."""
        return {}

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `LoaderSplit.batches` and `Labelled`.

        Raises:
            DataError: a batch has no inputs or labels that a classifier could use.
        """
        for batch in self.items.batches(order, batch_size, seed=seed, start=start):
            yield moved(self._as_pair(batch), device)

    def _as_pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs, where = self.parts.inputs_of(batch), f"the {self.items.name} data"
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            raise DataError(f"the inputs are {describe_structure(inputs)}", where=where, allowed="one tensor (B, ...)")
        return inputs[0], self._checked(self.parts.targets_of(batch), where)

    def _checked(self, labels: Any, where: str) -> Tensor:
        """Labels as losses take them; a training loader may mix images, and then gives shares of classes."""
        shares = _are_several(labels) and labels.shape[1] == self.classes
        if shares and (self.several or self.items.name == "train"):
            return labels.float()
        if self.several or not _are_classes(labels):
            shape = f" {tuple(labels.shape)}" if isinstance(labels, Tensor) else ""
            allowed = f"floating-point (B, {self.classes})" if self.several else "whole numbers (B,), in each split"
            raise DataError(f"labels are {describe_structure(labels)}{shape}", where=where, allowed=allowed)
        strange = labels[(labels < 0) | (labels >= self.classes)]
        if len(strange):
            raise DataError(f"a label is {int(strange[0])}", where=where, allowed=f"0 to {self.classes - 1}")
        return labels.long()


def load(spec: Mapping[str, Any], where: str) -> Classification:
    """Read a classification task whose `data:` mapping names the user's own datasets or loaders; see `load_task`.

    `data` has `train`, `validation` and, for finalists, `test`, each as `read_split` takes it; `num_classes` where the
    training data have no `classes`; `inputs` and `targets`, the keys of a batch that is a mapping; `images_per_pass`.

    Raises:
        InputError: a key or value is wrong. DataError: a loader cannot be made or used.
    """
    check_keys(spec, where)
    dense = read_dense_model(spec.get("model"), f"{where}.model", zoo.find)
    data = _read_data(expect_mapping(spec.get("data"), f"{where}.data"), f"{where}.data")
    found: dict[str, LoaderSplit] = {name: data[name] for name in ("train", "validation", "test") if name in data}
    parts = BatchParts.of(data.get("inputs"), data.get("targets"), f"{where}.data")
    labels = parts.targets_of(next(found["validation"].batches(torch.zeros(1, dtype=torch.int64), 1)))
    several = _are_several(labels)
    classes = _count_classes(labels, data.get("num_classes"), found, f"{where}.data.num_classes")
    splits = {
        name: LabelledItems(items=items, parts=parts, classes=classes, several=several) for name, items in found.items()
    }
    return Classification(
        dense=dense,
        images_per_pass=data.get("images_per_pass", found["validation"].images_per_pass),
        **{"test": None, **splits},
        **judged_by(spec, classes, several=several, where=where),
    )


def _read_data(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key, done_by in BY_DATASETS.items():
        if key in data:
            raise InputError(f"{key!r} means nothing to datasets of your own", where=where, allowed=done_by)
    found = read_data(data, where, "num_classes")
    if "num_classes" in found:
        given = found["num_classes"]
        found["num_classes"] = read_value(int, given, f"{where}.num_classes", within(1, 10**9))
    return found


def _are_several(labels: object) -> bool:
    return isinstance(labels, Tensor) and labels.is_floating_point() and labels.dim() == 2


def _are_classes(labels: object) -> bool:
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return isinstance(labels, Tensor) and labels.dtype in kinds and labels.dim() == 1


def _count_classes(labels: Tensor, given: int | None, splits: Mapping[str, LoaderSplit], where: str) -> int:
    """As many as there are labels per image, if there are several; else what the user says, else what datasets say.

    Args:
        labels: of one item.

    Raises:
        InputError: nobody says it, or it is not true. DataError: the datasets of two splits have other classes.
    """
    if _are_several(labels):
        if given not in (None, labels.shape[1]):
            raise InputError(f"images have {labels.shape[1]} labels, not {given}", where=where)
        return labels.shape[1]
    if given is not None:
        return given
    named = {name: _classes_of(split.loader.dataset) for name, split in splits.items()}
    if named["train"] is None:
        allowed = "their number, or datasets with a list of `classes`, as torchvision's have"
        raise InputError("how many classes are there?", where=where, allowed=allowed)
    for name, classes in named.items():
        if classes not in (None, named["train"]):
            raise DataError("other classes than train", where=f"the {name} data", allowed="the same in each")
    return len(named["train"])


def _classes_of(dataset: Any) -> list[Any] | None:
    """What a dataset says of its classes, or the dataset that it is a subset of."""
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    return list(classes) if isinstance(classes, (list, tuple)) else None
