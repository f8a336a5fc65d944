"""Task: everything a trial has to know about a problem: model factory, data splits, loss and metric.

What a batch holds is known to its task alone: splits yield batches; `loss`, `predict` and `Metric.update` take them.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ModelError
from autoprune.recipe import Training
from autoprune.study.metric import MetricSpec
from autoprune.training.processes import Processes
from autoprune.training.protocols import Batch, Forward, Loss, Metric, WholeMetric


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How stored pixels become inputs: (x / scale - mean) / std per channel; and what training may do to them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    augment: tuple[str, ...] = ()

    def normalise(self, images: Tensor) -> Tensor:
        """(N, H, W, C) of any type -> (N, C, H, W) float32; the memory stays channels-last, nothing is copied twice."""
        mean, std = (
            torch.tensor(values, device=images.device, dtype=torch.float32) for values in (self.mean, self.std)
        )
        return images.float().mul_(1 / (self.scale * std)).sub_(mean / std).permute(0, 3, 1, 2)


class Split(ABC):
    """One part of a data set."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """The images of `order` as batches of this task, their tensors on `device`.

        Args:
            order: indices into the split, int64 (N,); the last batch may be smaller.
            seed: augment as this seed says (every image of `order` has its own draw); None = the images as they are.
            start: number of leading batches left out; the others are what they would have been.
        """

    @abstractmethod
    def to(self, device: str) -> Split:
        """The same split with its images on `device`, or itself where they do not fit there."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digest of the images and of what is to be learnt of them."""

    @property
    def in_memory(self) -> bool:
        """Whether all of it lies in memory, so that it can be handed to other processes as it is."""
        return False

    def of_process(self, processes: Processes) -> Split:
        """The same split, of whose batches each process gets its part: its images as they are in the whole batch.

        Here whole batches are made and parts of them taken. A split that decodes files can decode its part alone.
        """
        return _Dealt(self, processes)


@dataclass(frozen=True, eq=False)
class _Dealt(Split):
    """Parts of the batches of a split."""

    whole: Split
    processes: Processes

    def __len__(self) -> int:
        return len(self.whole)

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[Batch]:
        batches = self.whole.batches(order, batch_size, device=device, seed=seed, start=start)
        return map(self.processes.part_of, batches)

    def to(self, device: str) -> Split:
        return _Dealt(self.whole.to(device), self.processes)

    def fingerprint(self) -> str:
        return self.whole.fingerprint()


class Labelled(Split):
    """Inputs with a class each, or with several labels each: a batch is inputs and labels.

    Inputs: (B, C, H, W) float32; labels: int64 (B,), or float32 (B, labels), of 0 and 1 or shares.
    """

    @abstractmethod
    def learning_facts(self) -> list[Any]:
        """What of these data decides the weights that are trained on them, in plain data and dataclasses."""

    @abstractmethod
    def input_facts(self) -> dict[str, Any]:
        """See `Task.input_facts`."""


class LabelledImages(Labelled):
    """Images as they are stored, with their labels. `labels`: int64 (N,), or float32 (N, labels) of 0 and 1."""

    labels: Tensor
    pixels: Pixels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def learning_facts(self) -> list[Any]:
        """Images, labels, and what training does to pixels; see `Labelled.learning_facts`."""
        return [self.fingerprint(), self.pixels]

    def input_facts(self) -> dict[str, Any]:
        """Scale, mean and std of the pixels; see `Task.input_facts`."""
        return dataclasses.asdict(self.pixels)

    @abstractmethod
    def fetch(
        self, order: Tensor, batch_size: int, *, device: str, seed: int | None, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Stored pixels (B, H, W, C) and labels of `order`, batch by batch, on `device`; arguments as of `batches`."""

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Network inputs (B, C, H, W) float32, channels-last, and labels (B,), on `device`; see `Split.batches`."""
        for images, labels in self.fetch(order, batch_size, device=device, seed=seed, start=start):
            yield self.pixels.normalise(images), labels


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A problem to prune for.

    Fields:
        spec: the `task:` mapping it was read from; `load_task` sets it.
        train, validation, test: disjoint splits. Selection looks at `validation`; `test` is read once, at the very end,
            and may be missing where no finalists are trained.
        images_per_pass: most images of a forward pass where their number does not change what comes out: when a model
            is measured, scored or recalibrated. How many fit into memory.
        remarks: what its user should know of how data are read, in sentences that the search repeats.
        precisions: those that its networks may compute in, of `fp32` and `bf16`.
        same_shapes: whether all batches of so many images have the same shapes, so that a step can be a CUDA graph.
        loss_while_training: whether `loss` needs the model in training mode, as of networks that return their losses
            there and nowhere else; methods then ask for it with batch norms and dropout in eval mode.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    train: Split
    validation: Split
    test: Split | None
    images_per_pass: int = 1000
    precisions: tuple[str, ...] = ("fp32", "bf16")
    same_shapes: bool = True
    loss_while_training: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def in_memory(self) -> bool:
        """Whether all splits lie in memory."""
        return all(split.in_memory for split in (self.train, self.validation, self.test) if split is not None)

    @abstractmethod
    def build(self, seed: int = 0) -> nn.Module:
        """A new dense model with the weights its factory draws with this seed; in eval mode, on the CPU."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A new dense model with its trained weights, in eval mode, on the CPU.

        Raises:
            ModelError: the checkpoint does not fit, or the model's output is not what the task needs.
        """

    def weights_remark(self, model: nn.Module) -> str:
        """A sentence on where the dense model's weights were found, if there is something to say; else nothing."""
        del model
        return ""

    @abstractmethod
    def loss(self, model: Forward, batch: Batch, training: Training | None = None) -> Loss:
        """One forward pass: the mean loss of a batch, float32, and the outputs that it comes from.

        Args:
            training: what a recipe says of the loss, such as label smoothing; None = the plain loss.
        """

    @abstractmethod
    def predict(self, model: Forward, batch: Batch) -> Any:
        """One forward pass: what the model gives for a batch."""

    @abstractmethod
    def distillation(self, outputs: Any, taught: Any, temperature: float) -> Tensor:
        """How far a model's outputs are from a teacher's for the same batch, mean over the batch, float32.

        Raises:
            InputError: this task knows no such distance.
        """

    @property
    @abstractmethod
    def metric_spec(self) -> MetricSpec:
        """What the number that `metric` gives means: name, direction, range and unit."""

    @abstractmethod
    def metric(self) -> Metric | WholeMetric:
        """What a model is judged by, having counted nothing yet; its value is as `metric_spec` says."""

    @abstractmethod
    def example(self) -> tuple[Any, ...]:
        """The positional inputs of a forward pass on one image, on the CPU: what the model is traced and timed with.

        They may have any structure that `training/batch_structure.py` describes: `(image (1, C, H, W),)` for most
        networks, `([image (C, H, W)],)` for a detector that takes a list.
        """

    @abstractmethod
    def input_facts(self) -> dict[str, Any]:
        """How stored data become inputs, in plain data, for the model card."""


def check_outputs(outputs: object, num_classes: int, where: str, numbering: str = "") -> None:
    """Raise `ModelError` unless the model answered one tensor (N, num_classes) for a batch of two images.

    Args:
        numbering: which numbers the classes of the data have, in words; see `Source`.
    """
    if not isinstance(outputs, Tensor):
        what = f"the model returns a {type(outputs).__name__}"
        if isinstance(outputs, Mapping):
            what += f" with {', '.join(map(str, list(outputs)[:5]))}"
        allowed = "one tensor (N, classes) in eval mode: wrap it in a torch.nn.Module whose forward returns that"
        raise ModelError(what, where=where, allowed=allowed)
    if outputs.shape != (2, num_classes):
        of_data = f", as the data have {num_classes} classes ({numbering})" if numbering else ""
        what = f"the model returns {tuple(outputs.shape)} for 2 images"
        raise ModelError(what, where=where, allowed=f"(2, {num_classes}){of_data}")
