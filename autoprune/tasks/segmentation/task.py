"""Semantic segmentation: a class per pixel; cross entropy or Dice, mean IoU or mean Dice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ModelError, check_name
from autoprune.recipe import Training
from autoprune.schema import expect_mapping, read, to_plain
from autoprune.study.metric import MetricSpec
from autoprune.tasks.base import Task
from autoprune.tasks.dense_model import DenseModel, outputs_for_two_images, read_dense_model
from autoprune.tasks.segmentation.data import MaskDataSpec, load_splits
from autoprune.tasks.segmentation.losses import LossSpec
from autoprune.tasks.segmentation.metric import METRICS, PixelMetric
from autoprune.tasks.segmentation.networks import build_network, check_network
from autoprune.training.distillation import distillation
from autoprune.training.protocols import Batch, Forward, Loss


@dataclass(frozen=True, kw_only=True)
class Segmentation(Task):
    """A network (N, C, H, W) -> (N, classes, H, W), or torchvision's mapping with such an `out`; images and masks.

    Fields:
        classes: names of the classes 0, 1, ...
        metric_name: one of `METRICS`.
    """

    images_per_pass: int = 32
    classes: tuple[str, ...]
    loss_spec: LossSpec
    metric_name: str
    dense: DenseModel

    def build(self, seed: int = 0) -> nn.Module:
        """See `Task.build`."""
        return self.dense.build(self._build_by_name, seed)

    def model(self) -> nn.Module:
        """See `Task.model`."""
        self._check_outputs()
        return self.dense.trained(self, lambda: [self.train.fingerprint(), self.train.pixels, self.loss_spec])

    def weights_remark(self, model: nn.Module) -> str:
        """See `DenseModel.weights_remark`."""
        return self.dense.weights_remark(model)

    def loss(self, model: Forward, batch: Batch, training: Training | None = None) -> Loss:
        """See `LossSpec`; an auxiliary output, which some networks have in training, adds its share."""
        images, masks = batch
        outputs = model(images)
        logits, smoothing = _logits_of(outputs), 0.0 if training is None else training.label_smoothing
        value = self.loss_spec.of(logits, masks, smoothing)
        if isinstance(outputs, Mapping) and "aux" in outputs:
            value = value + self.loss_spec.auxiliary * self.loss_spec.of(outputs["aux"], masks, smoothing)
        return Loss(value, logits)

    def predict(self, model: Forward, batch: Batch) -> Tensor:
        """Logits (B, classes, H, W)."""
        images, _masks = batch
        return _logits_of(model(images))

    def distillation(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """As of classifiers, mean over all pixels; see `training.distillation.distillation`."""
        student, teacher = (logits.movedim(1, -1).flatten(0, -2) for logits in (outputs, taught))
        return distillation(student, teacher, temperature)

    @property
    def metric_spec(self) -> MetricSpec:
        """See `METRICS`."""
        return METRICS[self.metric_name]

    def metric(self) -> PixelMetric:
        """See `PixelMetric`."""
        return PixelMetric(self.metric_name, len(self.classes))

    def example(self) -> tuple[Tensor]:
        """The first training image as the network sees it, without augmentation; see `Task.example`."""
        images, _masks = next(self.train.batches(torch.zeros(1, dtype=torch.int64), 1))
        return (images.contiguous(),)

    def input_facts(self) -> dict[str, Any]:
        """Scale, mean and std of the pixels; see `Task.input_facts`."""
        return dataclasses.asdict(self.validation.pixels)

    def _build_by_name(self) -> nn.Module:
        spec, (images,) = self.dense.spec, self.example()
        shape, where = tuple(images.shape[1:]), f"{self.dense.where}.name"
        return build_network(str(spec.name), shape, len(self.classes), spec.arguments, where)

    def _check_outputs(self) -> None:
        example = self.example()
        logits = _logits_of(outputs_for_two_images(self.build(), example, self.dense.where), self.dense.where)
        wanted = (2, len(self.classes), *example[0].shape[2:])
        if tuple(logits.shape) != wanted:
            found = tuple(logits.shape)
            raise ModelError(f"the model returns {found} for 2 images", where=self.dense.where, allowed=str(wanted))


def load(spec: Mapping[str, Any], where: str) -> Segmentation:
    """Read a segmentation task; see `load_task`.

    Raises:
        InputError: a key or value is wrong. DataError: the data are missing or malformed.
    """
    for key in spec:
        check_name(key, ("kind", "data", "model", "loss", "metric"), kind="key", where=where)
    metric = check_name(spec.get("metric", "miou"), METRICS, kind="metric", where=f"{where}.metric")
    loss = read(LossSpec, expect_mapping(spec.get("loss", {}), f"{where}.loss"), f"{where}.loss")
    dense = read_dense_model(spec.get("model"), f"{where}.model", check_network)
    data = read(MaskDataSpec, expect_mapping(spec.get("data"), f"{where}.data"), f"{where}.data")
    splits, classes = load_splits(data, f"{where}.data")
    return Segmentation(spec=to_plain(spec), classes=classes, loss_spec=loss, metric_name=metric, dense=dense, **splits)


def _logits_of(outputs: object, where: str = "") -> Tensor:
    """The network's main output."""
    logits = outputs.get("out") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor):
        allowed = "one tensor (N, classes, H, W), or a mapping with it under 'out'"
        raise ModelError(f"the model returns a {type(outputs).__name__}", where=where, allowed=allowed)
    return logits
