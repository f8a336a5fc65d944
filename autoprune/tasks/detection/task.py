"""Object detection with torchvision's calling convention: losses in training mode, boxes in eval mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import InputError, ModelError, check_name, first_line
from autoprune.recipe import Training
from autoprune.schema import expect_mapping, read, to_plain
from autoprune.study.metric import MetricSpec
from autoprune.tasks.base import Task
from autoprune.tasks.dense_model import DenseModel, outputs_for_two_images, read_dense_model
from autoprune.tasks.detection.data import BoxDataSpec, load_splits
from autoprune.tasks.detection.metric import FOUND, METRICS, MeanAveragePrecision, require_counter
from autoprune.tasks.detection.networks import build_network, check_network
from autoprune.tasks.detection.splits import ImagesWithBoxes, ResidentBoxes
from autoprune.training.loss_mode import asked_for_losses
from autoprune.training.protocols import Batch, Forward, Loss


@dataclass(frozen=True, kw_only=True)
class BoxTask(Task):
    """Images with boxes, and a network that is called as model(images, targets) in training mode.

    It returns a mapping of losses then, of which the sum is minimised. A batch is images, and targets: a mapping per
    image, see `as_target`.

    Fields:
        classes: names of the classes.
        metric_name: one of `METRICS`.
    """

    loss_while_training: bool = True
    # anchors are made in the type of the features: in bfloat16 a corner at 800 pixels is off by up to 2
    precisions: tuple[str, ...] = ("fp32",)
    # its passes go over images and boxes one by one, and their numbers change with every batch
    same_shapes: bool = False
    classes: tuple[str, ...]
    metric_name: str
    dense: DenseModel

    def weights_remark(self, model: nn.Module) -> str:
        """See `DenseModel.weights_remark`."""
        return self.dense.weights_remark(model)

    def loss(self, model: Forward, batch: Batch, training: Training | None = None) -> Loss:
        """The sum of the model's losses, and all of them by name."""
        if training is not None and training.label_smoothing:
            what = "a detector computes its losses itself and is not told of label smoothing"
            raise InputError(what, where="training.label_smoothing", allowed="0")
        images, targets = batch
        losses: dict[str, Tensor] = model(images, [_to_learn_from(target) for target in targets])
        return Loss(torch.stack([loss.float() for loss in losses.values()]).sum(), losses)

    def distillation(self, outputs: Any, taught: Any, temperature: float) -> Tensor:
        """There is none: which boxes two detectors mean by which is theirs to say."""
        raise InputError("detectors are not distilled", where="training.distill", allowed="0")

    @property
    def metric_spec(self) -> MetricSpec:
        """See `METRICS`."""
        return METRICS[self.metric_name]

    def metric(self) -> MeanAveragePrecision:
        """See `MeanAveragePrecision`."""
        return MeanAveragePrecision(self.metric_name)


@dataclass(frozen=True, kw_only=True)
class Detection(BoxTask):
    """A detector of torchvision's convention and images with boxes; the label of the first class is 1.

    In eval mode model(images) returns a mapping with boxes, scores and labels per image. It normalises and scales
    images itself.
    """

    train: ImagesWithBoxes
    validation: ImagesWithBoxes
    test: ImagesWithBoxes

    def build(self, seed: int = 0) -> nn.Module:
        """See `Task.build`."""
        return self.dense.build(self._build_by_name, seed)

    def model(self) -> nn.Module:
        """See `Task.model`."""
        self._check_network()
        return self.dense.trained(self, lambda: [self.train.fingerprint(), getattr(self.train, "augment", ())])

    def predict(self, model: Forward, batch: Batch) -> list[dict[str, Tensor]]:
        """Boxes, scores and labels, image by image."""
        images, _targets = batch
        found: list[dict[str, Tensor]] = model(images)
        return found

    def example(self) -> tuple[list[Tensor]]:
        """The first training image without augmentation, (C, H, W) from 0 to 1, in a list; see `Task.example`."""
        images, _targets = self._first_images(1)
        return (images,)

    def input_facts(self) -> dict[str, Any]:
        """Scale of the pixels; the model does the rest. See `Task.input_facts`."""
        return {"scale": 255.0}

    def _first_images(self, count: int) -> Batch:
        chosen = torch.arange(min(count, len(self.train)))
        return next(iter(self.train.batches(chosen, len(chosen))))

    def _build_by_name(self) -> nn.Module:
        spec, (images,) = self.dense.spec, self.example()
        where = f"{self.dense.where}.name"
        return build_network(str(spec.name), images[0].shape, len(self.classes) + 1, spec.arguments, where)

    def _check_network(self) -> None:
        """Raise `ModelError` unless a new network finds boxes in eval mode and has losses in training mode."""
        model, where = self.build(), self.dense.where
        found = outputs_for_two_images(model, self.example(), where)
        if not (isinstance(found, list) and len(found) == 2 and all(map(_is_detection, found))):
            allowed = f"in eval mode a list of mappings with {', '.join(FOUND)}"
            raise ModelError(f"the model returns a {type(found).__name__}", where=where, allowed=allowed)
        _check_losses(self, model, where)


def load(spec: Mapping[str, Any], where: str) -> Detection:
    """Read a detection task; see `load_task`.

    Raises:
        InputError: a key or value is wrong, or a package is missing. DataError: the data are missing or malformed.
    """
    for key in spec:
        check_name(key, ("kind", "data", "model", "metric"), kind="key", where=where)
    metric = check_name(spec.get("metric", "map"), METRICS, kind="metric", where=f"{where}.metric")
    require_counter(where)
    dense = read_dense_model(spec.get("model"), f"{where}.model", check_network)
    data = read(BoxDataSpec, expect_mapping(spec.get("data"), f"{where}.data"), f"{where}.data")
    splits, classes = load_splits(data, f"{where}.data")
    # in memory lie small images; of large ones, more than a few per pass fill a memory
    per_pass = 64 if isinstance(splits["train"], ResidentBoxes) else 4
    return Detection(
        spec=to_plain(spec), classes=classes, metric_name=metric, dense=dense, images_per_pass=per_pass, **splits
    )


def _to_learn_from(target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Boxes and labels of the objects that are not ignored."""
    counts = target["iscrowd"] == 0
    return {name: target[name][counts] for name in ("boxes", "labels")}


def _is_detection(found: object) -> bool:
    return isinstance(found, Mapping) and all(isinstance(found.get(name), Tensor) for name in FOUND)


def _check_losses(task: Detection, model: nn.Module, where: str) -> None:
    allowed = "in training mode, called with images and targets, a mapping of losses"
    try:
        with asked_for_losses(model), torch.no_grad():
            loss = task.loss(model, task._first_images(2))
    except Exception as error:  # a forward pass may raise anything
        message = f"the model has no losses in training mode: {type(error).__name__}: {first_line(error)}"
        raise ModelError(message, where=where, allowed=allowed) from error
    if not torch.isfinite(loss.value):
        raise ModelError(f"the loss of two images is {loss.value.item()}", where=where, allowed="a finite number")
