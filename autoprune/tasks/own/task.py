"""LoaderTask: users' own loaders, model, loss and metric as a task; `autoprune.Task` is this class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import DataError, InputError, check_name, one_of
from autoprune.recipe import Training
from autoprune.schema import expect_mapping, read_value, to_plain, within
from autoprune.study.metric import MetricSpec
from autoprune.tasks import IN_PYTHON, with_spec, zoo
from autoprune.tasks.base import Task
from autoprune.tasks.dense_model import DenseModel, Facts, read_dense_model
from autoprune.tasks.losses import LossFunction, read_loss, total_loss
from autoprune.tasks.metrics import MetricChoice, read_metric
from autoprune.tasks.own.batches import BatchParts
from autoprune.tasks.own.loaders import LoaderSplit
from autoprune.tasks.own.networks import Given, check_source
from autoprune.tasks.user_code import call, load_object
from autoprune.training.protocols import Batch, Forward, Loss, Metric, WholeMetric


@dataclass(frozen=True, kw_only=True, eq=False)
class FromFile:
    """A network that a `model:` mapping describes; `arguments` has the `num_classes` of one of our own by name."""

    dense: DenseModel
    image: Callable[[], tuple[int, ...]]

    @property
    def where(self) -> str:
        """The path of the mapping."""
        return self.dense.where

    def build(self, seed: int) -> nn.Module:
        """See `DenseModel.build`."""
        return self.dense.build(self._build_by_name, seed)

    def trained(self, task: Task, facts: Facts) -> nn.Module:
        """See `DenseModel.trained`."""
        return self.dense.trained(task, facts)

    def weights_remark(self, model: nn.Module) -> str:
        """See `DenseModel.weights_remark`."""
        return self.dense.weights_remark(model)

    def _build_by_name(self) -> nn.Module:
        arguments = dict(self.dense.spec.arguments)
        if "num_classes" not in arguments:
            allowed = "arguments: {num_classes: N}, the outputs of the network"
            raise InputError(f"how many outputs has {self.dense.spec.name}?", where=self.where, allowed=allowed)
        classes = arguments.pop("num_classes")
        return zoo.build(str(self.dense.spec.name), self.image(), classes, arguments, f"{self.where}.name")


class LoaderTask(Task):
    """A task made of what its user has.

    Args:
        model: a function that returns the dense network with its trained weights, or the network itself.
        train, validation, test: DataLoaders or Datasets; transforms, samplers and collate functions are used as they
            are, the recipe says how large a batch is. Without `test` there are no finalists.
        loss: a function loss(outputs, targets), a name in torch.nn or torch.nn.functional, {name: ..., its arguments},
            or "model": the network is called with the targets too, in training mode, and returns its losses.
        metric: a name in torchmetrics or {name: ..., its arguments}, an object with update and compute, or a function
            evaluate(model, loader) -> number; in a mapping also `direction`, `best`, `worst`, `unit`, `called`.
        inputs, targets: the keys of a batch that is a mapping; one of several are given to the model in this order.
        images_per_pass: most images of a forward pass; default: the validation loader's batch size.

    A batch is (inputs, targets). The model is called with the inputs, with each of them if they are a tuple.

    Raises:
        InputError: something is none of these. DataError: a loader is empty or endless, or its items have no numbers.
    """

    network: Given | FromFile
    loss_function: LossFunction
    chosen_metric: MetricChoice
    parts: BatchParts

    def __init__(
        self,
        *,
        model: Any,
        train: Any,
        validation: Any,
        test: Any = None,
        loss: Any,
        metric: Any,
        inputs: Any = None,
        targets: Any = None,
        images_per_pass: int | None = None,
    ) -> None:
        function = loss if isinstance(loss, LossFunction) else read_loss(loss, "loss")
        chosen = metric if isinstance(metric, MetricChoice) else read_metric(metric, "metric")
        splits = {"train": _split_of(train, "train"), "validation": _split_of(validation, "validation")}
        super().__init__(
            spec=_described(model, splits["train"], function, chosen),
            images_per_pass=images_per_pass or splits["validation"].images_per_pass,
            loss_while_training=function.by_model,
            test=None if test is None else _split_of(test, "test"),
            **splits,
        )
        network = model if isinstance(model, FromFile) else Given(check_source(model, "model"))
        own = {"network": network, "loss_function": function, "chosen_metric": chosen}
        for name, value in {**own, "parts": BatchParts.of(inputs, targets, "task")}.items():
            object.__setattr__(self, name, value)  # tasks are frozen

    def build(self, seed: int = 0) -> nn.Module:
        """See `Task.build`."""
        return self.network.build(seed)

    def model(self) -> nn.Module:
        """See `Task.model`."""
        loss = self.loss_function
        return self.network.trained(self, lambda: [self.train.fingerprint(), loss.name, to_plain(loss.arguments)])

    def weights_remark(self, model: nn.Module) -> str:
        """See `Task.weights_remark`."""
        return self.network.weights_remark(model)

    def loss(self, model: Forward, batch: Batch, training: Training | None = None) -> Loss:
        """The loss of outputs and targets, or what the model itself returns as its losses; see `LossFunction.of`."""
        inputs, targets = self.parts.inputs_of(batch), self.parts.targets_of(batch)
        if self.loss_function.by_model:
            if training is not None and training.label_smoothing:
                what = "a model that computes its losses itself is not told of label smoothing"
                raise InputError(what, where="training.label_smoothing", allowed="0")
            losses = model(*inputs, targets)
            return Loss(total_loss(losses), losses)
        outputs = model(*inputs)
        return Loss(self.loss_function.of(outputs, targets, training), outputs)

    def predict(self, model: Forward, batch: Batch) -> Any:
        """What the model gives for the inputs."""
        return model(*self.parts.inputs_of(batch))

    def distillation(self, outputs: Any, taught: Any, temperature: float) -> Tensor:
        """See `LossFunction.distance`."""
        return self.loss_function.distance(outputs, taught, temperature)

    @property
    def metric_spec(self) -> MetricSpec:
        """See `read_metric`."""
        return self.chosen_metric.spec

    def metric(self) -> Metric | WholeMetric:
        """See `read_metric`."""
        started: Metric | WholeMetric = self.chosen_metric.start(self.parts.targets_of)
        return started

    def example(self) -> tuple[Any, ...]:
        """The inputs of the first training item; see `Task.example`."""
        return self.parts.inputs_of(next(self.train.batches(torch.zeros(1, dtype=torch.int64), 1)))

    def input_facts(self) -> dict[str, Any]:
        """Nothing: how stored data become inputs is in the user's transforms."""
        return {}


def load(spec: Mapping[str, Any], where: str) -> LoaderTask:
    """Read a task of references to the user's loaders, loss and metric; see `load_task`.

    Raises:
        InputError: a key or value is wrong. DataError: a loader cannot be made or used.
    """
    for key in spec:
        check_name(key, ("kind", "model", "data", "loss", "metric"), kind="key", where=where)
    missing = [key for key in ("model", "data", "loss", "metric") if key not in spec]
    if missing:
        raise InputError(f"missing key {missing[0]!r}", where=where, allowed="model, data, loss, metric")
    data = read_data(expect_mapping(spec["data"], f"{where}.data"), f"{where}.data")
    dense = read_dense_model(spec["model"], f"{where}.model", zoo.find)
    task = LoaderTask(
        model=FromFile(dense=dense, image=lambda: tuple(task.example()[0].shape[1:])),
        loss=read_loss(spec["loss"], f"{where}.loss"),
        metric=read_metric(spec["metric"], f"{where}.metric"),
        **data,
    )
    return with_spec(task, spec)


def read_data(data: Mapping[str, Any], where: str, *more: str) -> dict[str, Any]:
    """The splits and other entries of a `data:` mapping, with what its references stand for.

    Args:
        more: keys that a kind of task knows besides.
    """
    known = ("train", "validation", "test", "inputs", "targets", "images_per_pass", *more)
    for key in data:
        check_name(key, known, kind="key", where=where)
    for key in ("train", "validation"):
        if key not in data:
            raise InputError(f"missing key {key!r}", where=where, allowed=one_of(known))
    if "images_per_pass" in data:
        read_value(int, data["images_per_pass"], f"{where}.images_per_pass", within(1, 10**9))
    splits = {name: read_split(data[name], name, f"{where}.{name}") for name in known[:3] if name in data}
    return {**data, **splits}


def read_split(spec: object, name: str, where: str) -> LoaderSplit:
    """The split that a reference stands for: to a DataLoader or Dataset, or to a function or class that makes one.

    Args:
        spec: `module:name`, or {function: module:name, and its arguments}.
    """
    arguments = dict(expect_mapping(spec, where)) if isinstance(spec, Mapping) else {"function": spec}
    reference = arguments.pop("function", None)
    if not isinstance(reference, str):
        raise InputError(f"{reference!r} names no data", where=where, allowed="module:name, or {function: module:name}")
    found = load_object(reference, where)
    if isinstance(found, type) or (callable(found) and not hasattr(found, "__getitem__")):
        found = call(reference, found, arguments, where=where, kind=DataError)
    elif arguments:
        what = f"{reference} is data already, and takes no {next(iter(arguments))!r}"
        raise InputError(what, where=where, allowed="arguments of a function or class")
    return LoaderSplit.of(found, name, where)


def _described(model: Any, train: LoaderSplit, loss: LossFunction, metric: MetricChoice) -> dict[str, Any]:
    """What a study can say of a task that was given in Python."""
    network = getattr(model, "__name__", type(model).__name__)
    return {
        "kind": IN_PYTHON,
        "model": {"name": network},
        "data": {"name": type(train.loader.dataset).__name__},
        "loss": loss.name,
        "metric": metric.spec.name,
    }


def _split_of(data: Any, name: str) -> LoaderSplit:
    return data if isinstance(data, LoaderSplit) else LoaderSplit.of(data, name, name)
