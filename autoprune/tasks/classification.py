"""Image classification: one label per image, cross entropy, share of images that are right."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.errors import check_name
from autoprune.recipe import Training
from autoprune.schema import expect_mapping, read, to_plain
from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.tasks import zoo
from autoprune.tasks.base import LabelledImages, Task, check_outputs
from autoprune.tasks.data import load_splits
from autoprune.tasks.data_spec import DataSpec
from autoprune.tasks.dense_model import DenseModel, outputs_for_two_images, read_dense_model
from autoprune.training.distillation import distillation
from autoprune.training.protocols import Batch, Forward, Loss


class Accuracy:
    """The share of images whose largest logit is the label's, in [0, 1]."""

    def __init__(self) -> None:
        self._right, self._seen = torch.zeros((), dtype=torch.int64), 0

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Count the images of a batch, without waiting for the device."""
        _inputs, labels = batch
        self._right = self._right.to(labels.device) + (outputs.float().argmax(1) == labels).sum()
        self._seen += len(labels)

    def value(self) -> float:
        """Right images as a share of all that were counted."""
        return self._right.item() / self._seen


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """A network (N, C, H, W) -> (N, num_classes) and labelled images."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    num_classes: int
    dense: DenseModel

    def build(self, seed: int = 0) -> nn.Module:
        """See `Task.build`."""
        return self.dense.build(self._build_by_name, seed)

    def model(self) -> nn.Module:
        """See `Task.model`."""
        self._check_outputs()
        return self.dense.trained(self, [self.train.fingerprint(), self.train.pixels])

    def loss(self, model: Forward, batch: Batch, training: Training | None = None) -> Loss:
        """Cross entropy, mean over the batch; the target is 1 - s + s / classes for the label, else s / classes."""
        inputs, labels = batch
        logits, smoothing = model(inputs), 0.0 if training is None else training.label_smoothing
        return Loss(F.cross_entropy(logits.float(), labels, label_smoothing=smoothing), logits)

    def predict(self, model: Forward, batch: Batch) -> Tensor:
        """Logits (B, classes)."""
        inputs, _labels = batch
        logits: Tensor = model(inputs)
        return logits

    def distillation(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """See `training.distillation.distillation`."""
        return distillation(outputs, taught, temperature)

    @property
    def metric_spec(self) -> MetricSpec:
        """The share of images that are right; see `Task.metric_spec`."""
        return ACCURACY

    def metric(self) -> Accuracy:
        """See `Accuracy`."""
        return Accuracy()

    def example(self) -> tuple[Tensor]:
        """The first training image as the network sees it, without augmentation; see `Task.example`."""
        inputs, _labels = next(self.train.batches(torch.zeros(1, dtype=torch.int64), 1))
        return (inputs.contiguous(),)

    def input_facts(self) -> dict[str, Any]:
        """Scale, mean and std of the pixels; see `Task.input_facts`."""
        return dataclasses.asdict(self.validation.pixels)

    def _build_by_name(self) -> nn.Module:
        spec, (images,) = self.dense.spec, self.example()
        shape = tuple(images.shape[1:])
        return zoo.build(str(spec.name), shape, self.num_classes, spec.arguments, f"{self.dense.where}.name")

    def _check_outputs(self) -> None:
        outputs = outputs_for_two_images(self.build(), self.example(), self.dense.where)
        check_outputs(outputs, self.num_classes, self.dense.where)


def load(spec: Mapping[str, Any], where: str) -> Classification:
    """Read a classification task; see `load_task`."""
    for key in spec:
        check_name(key, ("kind", "data", "model"), kind="key", where=where)
    dense = read_dense_model(spec.get("model"), f"{where}.model", zoo.find)
    data_spec = read(DataSpec, expect_mapping(spec.get("data"), f"{where}.data"), f"{where}.data")
    splits, classes = load_splits(data_spec, f"{where}.data")
    return Classification(spec=to_plain(spec), num_classes=classes, dense=dense, **splits)
