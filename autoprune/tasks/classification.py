"""Image classification: a class per image or several labels; cross entropies; accuracy or any torchmetrics metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import DataError, InputError, ModelError, check_name
from autoprune.recipe import Training
from autoprune.schema import expect_mapping, read, to_plain
from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.tasks import zoo
from autoprune.tasks.arrays import are_one_hot
from autoprune.tasks.base import Labelled, LabelledImages, Pixels, Task, check_outputs
from autoprune.tasks.data import load_splits
from autoprune.tasks.data_spec import DataSpec, Source
from autoprune.tasks.dense_model import DenseModel, outputs_for_two_images, read_dense_model
from autoprune.tasks.losses import LossFunction, read_loss
from autoprune.tasks.metrics import MetricChoice, read_metric
from autoprune.tasks.splits import untested_classes
from autoprune.training.batch_structure import describe_structure
from autoprune.training.processes import Processes
from autoprune.training.protocols import Batch, Forward, Loss, Metric, WholeMetric

CROSS_ENTROPY = "CrossEntropyLoss"

#: What an auxiliary classifier's loss counts (Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 5).
AUXILIARY = 0.3


class Accuracy:
    """The share of images whose largest logit is the label's, in [0, 1]."""

    def __init__(self) -> None:
        self._right, self._seen = torch.zeros((), dtype=torch.int64), 0

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Count the images of a batch, without waiting for the device."""
        _inputs, labels = batch
        self._right = self._right.to(labels.device) + (outputs.float().argmax(1) == labels).sum()
        self._seen += len(labels)

    def share(self, processes: Processes) -> None:
        """See `SharedMetric.share`."""
        counted = torch.tensor([int(self._right), self._seen])
        processes.add_up(counted)
        self._right, self._seen = counted[0], int(counted[1])

    def value(self) -> float:
        """Right images as a share of all that were counted."""
        return self._right.item() / self._seen


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """A network (N, C, H, W) -> (N, num_classes), and images or items of the user's own with their labels.

    In training mode the network may return several things, in a sequence or a mapping. Of those that are (N,
    num_classes) the first counts in full, the others, of auxiliary classifiers, as `AUXILIARY` says; what else it
    returns, features for instance, is not learnt from.

    Fields:
        numbering: which numbers the classes have, in words, for errors.
    """

    train: Labelled
    validation: Labelled
    test: Labelled | None
    num_classes: int
    dense: DenseModel
    loss_function: LossFunction
    chosen_metric: MetricChoice
    numbering: str = ""

    def build(self, seed: int = 0) -> nn.Module:
        """See `Task.build`."""
        return self.dense.build(self._build_by_name, seed)

    def model(self) -> nn.Module:
        """See `Task.model`."""
        self._check_outputs()
        return self.dense.trained(self, self._facts)

    def weights_remark(self, model: nn.Module) -> str:
        """See `DenseModel.weights_remark`."""
        return self.dense.weights_remark(model)

    def loss(self, model: Forward, batch: Batch, training: Training | None = None) -> Loss:
        """Mean over the batch; of cross entropy the target is 1 - s + s / classes for the class, else s / classes.

        Of mixed images the targets are shares of classes. There torch's cross entropy divides by the number of images,
        not by the sum of their class weights.
        """
        inputs, labels = batch
        logits, *others = self._classifiers(model(inputs))
        value = self.loss_function.of(logits, labels, training)
        for other in others:
            value = value + AUXILIARY * self.loss_function.of(other, labels, training)
        return Loss(value, logits)

    def _classifiers(self, outputs: Any) -> Sequence[Tensor]:
        """What is learnt from, of all that the network returns; raises `ModelError` if there is nothing."""
        if isinstance(outputs, Tensor):
            return (outputs,)
        parts = outputs.values() if isinstance(outputs, Mapping) else outputs
        parts = list(parts) if isinstance(parts, Iterable) else [parts]
        found = [part for part in parts if isinstance(part, Tensor) and part.shape[1:] == (self.num_classes,)]
        if not found:
            what = f"in training mode the model returns {describe_structure(outputs)}"
            allowed = f"(N, {self.num_classes}), or several things of which the first such tensor is the classes'"
            raise ModelError(what, where=self.dense.where, allowed=allowed)
        return found

    def predict(self, model: Forward, batch: Batch) -> Tensor:
        """Logits (B, classes)."""
        inputs, _labels = batch
        return self._classifiers(model(inputs))[0]

    def distillation(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """See `LossFunction.distance`."""
        return self.loss_function.distance(outputs, taught, temperature)

    @property
    def metric_spec(self) -> MetricSpec:
        """The share of images that are right, unless the task names another metric; see `Task.metric_spec`."""
        return self.chosen_metric.spec

    def metric(self) -> Metric | WholeMetric:
        """See `Accuracy` and `read_metric`."""
        started: Metric | WholeMetric = self.chosen_metric.start(_labels_of)
        return started

    def example(self) -> tuple[Tensor]:
        """The first training image as the network sees it, without augmentation; see `Task.example`."""
        inputs, _labels = next(self.train.batches(torch.zeros(1, dtype=torch.int64), 1))
        return (inputs.contiguous(),)

    def input_facts(self) -> dict[str, Any]:
        """See `Task.input_facts`."""
        return self.validation.input_facts()

    def _facts(self) -> list[Any]:
        """What decides trained weights; of the default loss nothing is said, as of weights that were kept before."""
        facts = self.train.learning_facts()
        if self.loss_function.name != CROSS_ENTROPY or self.loss_function.arguments:
            facts += [self.loss_function.name, self.loss_function.arguments]
        return facts

    def _build_by_name(self) -> nn.Module:
        spec, (images,) = self.dense.spec, self.example()
        shape = tuple(images.shape[1:])
        return zoo.build(str(spec.name), shape, self.num_classes, spec.arguments, f"{self.dense.where}.name")

    def _check_outputs(self) -> None:
        outputs = outputs_for_two_images(self.build(), self.example(), self.dense.where)
        check_outputs(outputs, self.num_classes, self.dense.where, self.numbering)


def load(spec: Mapping[str, Any], where: str) -> Classification:
    """Read a classification task; see `load_task`.

    `loss` and `metric` are as `read_loss` and `read_metric` take them; what torchmetrics wants to know of the number of
    classes or labels is filled in.
    """
    check_keys(spec, where)
    dense = read_dense_model(spec.get("model"), f"{where}.model", zoo.find)
    data = read(DataSpec, expect_mapping(spec.get("data"), f"{where}.data"), f"{where}.data")
    splits, source = load_splits(data, f"{where}.data")
    several = splits["train"].labels.dim() == 2
    if several and "metric" not in spec and are_one_hot(splits["train"].labels):
        what, allowed = "each image has one of several labels: they are one-hot", "a class per image: labels.argmax(1)"
        raise DataError(what, where=f"{where}.data", allowed=f"{allowed}; or a `metric` of several labels")
    remarks = (*_remarks(data, dense, source, splits["validation"].pixels), *_untested(splits["validation"], source))
    judged = judged_by(spec, source.num_classes, several=several, where=where)
    return Classification(dense=dense, remarks=remarks, numbering=source.numbering, **splits, **judged)


def check_keys(spec: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` if the mapping of a classification task has a key that nothing reads."""
    for key in spec:
        check_name(key, ("kind", "data", "model", "loss", "metric"), kind="key", where=where)


def judged_by(spec: Mapping[str, Any], classes: int, *, several: bool, where: str) -> dict[str, Any]:
    """The fields of `Classification` that say what is learnt: loss and metric as the mapping names them, or by default.

    Args:
        classes: number of classes, or of labels where images have several.
    """
    loss = spec.get("loss", "BCEWithLogitsLoss" if several else CROSS_ENTROPY)
    return {
        "spec": to_plain(spec),
        "num_classes": classes,
        "loss_function": read_loss(loss, f"{where}.loss"),
        "chosen_metric": _read_metric(spec.get("metric"), classes, several, f"{where}.metric"),
    }


def _read_metric(spec: object, classes: int, several: bool, where: str) -> MetricChoice:
    if spec is not None:
        return read_metric(spec, where, known={"num_classes": classes, "num_labels": classes})
    if several:
        allowed = "a metric of several labels, such as MultilabelF1Score"
        raise InputError("images with several labels have no accuracy", where=where, allowed=allowed)
    return MetricChoice(ACCURACY, lambda _labels_of: Accuracy())


def _remarks(data: DataSpec, dense: DenseModel, source: Source, pixels: Pixels) -> tuple[str, ...]:
    """What is taken for the normalisation of a checkpoint that somebody else has trained, if nothing is said of it."""
    if data.mean or dense.spec.checkpoint is None:
        return ()
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (pixels.mean, pixels.std))
    taken = f"Images are normalised with mean {mean} and std {std}, {source.statistics}"
    return (f"{taken}: {dense.spec.checkpoint} was trained so, or data.mean and data.std have to say with what.",)


def _untested(validation: LabelledImages, source: Source) -> tuple[str, ...]:
    """That classes have no image to validate on, if so: the search cannot see what pruning does to them."""
    missing = untested_classes(validation, source.num_classes)
    if not missing:
        return ()
    shown = ", ".join(source.classes[number] if source.classes else str(number) for number in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (f"Validation has no image of class {shown}{more}: what pruning does to it is not seen.",)


def _labels_of(batch: Batch) -> Any:
    _inputs, labels = batch
    return labels
