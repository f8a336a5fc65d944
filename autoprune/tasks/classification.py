"""Image classification: one label per image, cross entropy, share of images that are right."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.errors import AutopruneError, InputError, ModelError, check_name
from autoprune.recipe import Training, stable_hash
from autoprune.schema import expect_mapping, read, to_plain
from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.tasks import zoo
from autoprune.tasks.base import LabelledImages, Task, check_outputs
from autoprune.tasks.data import load_splits
from autoprune.tasks.data_spec import DataSpec
from autoprune.tasks.user_code import data_folder, load_function
from autoprune.tasks.weight_files import check_writable, find, load_weights, save_weights
from autoprune.training.distillation import distillation
from autoprune.training.fit import fit
from autoprune.training.protocols import Batch, Forward, Loss
from autoprune.training.runtime import Runtime, pick_device


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The `model:` mapping of a task.

    Fields:
        name: one of `zoo.names()`, `torchvision/NAME`, `timm/NAME`.
        factory: instead of a name, `module:function` returning the dense model.
        arguments: passed to the model's constructor or to `factory`.
        checkpoint: file with the trained weights, absolute, in the current folder or in $AUTOPRUNE_DATA.
        train: instead of a checkpoint, how to train the dense model (the fields of `Training`, and `seed`); done once
            and kept under $AUTOPRUNE_DATA/trained. `{images: 0}` asks for the untrained network.
    """

    name: str | None = None
    factory: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    train: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How the dense model is trained when there is no checkpoint."""

    training: Training
    seed: int


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
    model_spec: ModelSpec
    pretraining: Pretraining | None
    where: str

    def build(self, seed: int = 0) -> nn.Module:
        """See `Task.build`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self._build_network()
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"the factory returns a {type(model).__name__}", where=self.where, allowed="a torch.nn.Module"
            )
        return model.to("cpu").eval()

    def model(self) -> nn.Module:
        """See `Task.model`."""
        model = self.build()
        self._check_forward(model)
        if self.model_spec.checkpoint is not None:
            load_weights(model, find(self.model_spec.checkpoint, f"{self.where}.checkpoint"))
        elif self.pretraining is not None:
            self._train_dense(model, self.pretraining)
        elif self.model_spec.factory is None and not set(self.model_spec.arguments) & {"weights", "pretrained"}:
            raise ModelError(
                f"no trained weights for {self.model_spec.name}", where=self.where, allowed="checkpoint, train"
            )
        return model.eval()

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

    def example(self) -> Tensor:
        """The first training image as the network sees it, without augmentation; see `Task.example`."""
        inputs, _labels = next(self.train.batches(torch.zeros(1, dtype=torch.int64), 1))
        return inputs.contiguous()

    def input_facts(self) -> dict[str, Any]:
        """Scale, mean and std of the pixels; see `Task.input_facts`."""
        return dataclasses.asdict(self.validation.pixels)

    def _build_network(self) -> nn.Module:
        spec, shape = self.model_spec, tuple(self.example().shape[1:])
        if spec.name is not None:
            return zoo.build(spec.name, shape, self.num_classes, spec.arguments, f"{self.where}.name")
        factory = load_function(str(spec.factory), f"{self.where}.factory")
        try:
            return factory(**spec.arguments)
        except AutopruneError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise ModelError(f"{spec.factory} failed: {type(error).__name__}: {error}", where=self.where) from error

    @torch.inference_mode()
    def _check_forward(self, model: nn.Module) -> None:
        images = self.example().repeat(2, 1, 1, 1)
        try:
            outputs = model(images)
        except Exception as error:  # a forward pass may raise anything
            shape = "x".join(map(str, images.shape[1:]))
            raise ModelError(f"the model cannot run on {shape} images: {error}", where=self.where) from error
        check_outputs(outputs, self.num_classes, self.where)

    def _train_dense(self, model: nn.Module, how: Pretraining) -> None:
        """Fill `model` from the cache, or train it and fill the cache."""
        if how.training.images == 0:
            return
        folder = data_folder() / "trained"
        file = folder / f"{self._training_key(model, how)}.safetensors"
        if file.is_file():
            load_weights(model, file)
            return
        check_writable(folder, f"{self.where}.train")
        # fp32 and not the faster of two measured types: the key must decide the weights
        runtime = Runtime(device=pick_device("auto"), precision="fp32", channels_last=True)
        fit(model, self, how.training, runtime, images=how.training.images, seed=how.seed)
        save_weights(model.to("cpu"), file)

    def _training_key(self, model: nn.Module, how: Pretraining) -> str:
        """Everything that decides the trained weights: architecture and first weights, data, normalisation, recipe."""
        start = {
            name: [float(t.double().sum()), float(t.double().abs().sum())] for name, t in model.state_dict().items()
        }
        data = [self.train.fingerprint(), self.train.pixels]
        return stable_hash([str(model), start, data, how])


def load(spec: Mapping[str, Any], where: str) -> Classification:
    """Read a classification task; see `load_task`."""
    for key in spec:
        check_name(key, ("kind", "data", "model"), kind="key", where=where)
    model_spec = _read_model(spec.get("model"), f"{where}.model")
    data_spec = read(DataSpec, expect_mapping(spec.get("data"), f"{where}.data"), f"{where}.data")
    pretraining = _read_pretraining(model_spec.train, f"{where}.model.train")
    splits, classes = load_splits(data_spec, f"{where}.data")
    return Classification(
        spec=to_plain(spec),
        num_classes=classes,
        model_spec=model_spec,
        pretraining=pretraining,
        where=f"{where}.model",
        **splits,
    )


def _read_model(data: object, where: str) -> ModelSpec:
    spec = read(ModelSpec, data, where)
    if (spec.name is None) == (spec.factory is None):
        raise InputError("give `name` or `factory`, one of the two", where=where)
    if spec.checkpoint is not None and spec.train is not None:
        raise InputError("give `checkpoint` or `train`, not both", where=where)
    if spec.name is not None:
        zoo.find(spec.name, f"{where}.name")
    return spec


def _read_pretraining(data: Mapping[str, Any] | None, where: str) -> Pretraining | None:
    if data is None:
        return None
    fields = dict(expect_mapping(data, where))
    seed = fields.pop("seed", 0)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"{seed!r} is no seed", where=f"{where}.seed", allowed="0 to 2**32 - 1")
    training = read(Training, fields, where)
    if training.distill:
        raise InputError("the dense model has no teacher", where=f"{where}.distill", allowed="0")
    return Pretraining(training=training, seed=seed)
