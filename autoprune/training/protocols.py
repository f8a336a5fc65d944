"""What training needs to know of a task, of one of its splits, of a metric and of a regulariser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from autoprune.recipe import Training
from autoprune.study.metric import MetricSpec
from autoprune.training.processes import Processes

#: What a split yields: tensors in any structure. Only its task knows what is in it.
Batch = Any
#: A model, or a function that calls one in the precision of a runtime.
Forward = Callable[..., Any]


class Loss(NamedTuple):
    """The mean loss of a batch, a float32 scalar, and the outputs of the forward pass that it comes from."""

    value: Tensor
    outputs: Any


class TrainingSplit(Protocol):
    """A split as training sees it; `tasks.Split` is one."""

    def __len__(self) -> int:
        """Number of images."""

    def to(self, device: str) -> TrainingSplit:
        """The same split, its images on `device` where they fit there."""

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """The images of `order` batch by batch, on `device`; see `tasks.Split.batches`."""

    def of_process(self, processes: Processes) -> TrainingSplit:
        """The same split, of whose batches each process gets its part; see `tasks.Split.of_process`."""


class Metric(Protocol):
    """Adds up over the batches of a split how well a model does."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Count one batch: what `TrainingTask.predict` gave for it."""

    def value(self) -> float:
        """The metric over all images counted; the device is waited for here."""


@runtime_checkable
class WholeMetric(Protocol):
    """A metric that runs the model itself, over all batches of a split, in place of `update` and `value`."""

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """The metric of a model in eval mode; the batches can be gone through more than once and have a length."""


@runtime_checkable
class SharedMetric(Metric, Protocol):
    """A metric that several processes can count in parts: each updates its own with the batches that it has seen."""

    def share(self, processes: Processes) -> None:
        """Give the first process what all have counted; all call this after their last `update`, it alone `value`."""


class TrainingTask(Protocol):
    """A task as training sees it; `tasks.Task` is one."""

    @property
    def train(self) -> TrainingSplit:
        """The images to train on."""

    @property
    def validation(self) -> TrainingSplit:
        """The images on which rungs are measured."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that its networks may compute in; see `Runtime`."""

    @property
    def same_shapes(self) -> bool:
        """Whether all batches of so many images have the same shapes, so that a step on them can be captured."""

    @property
    def images_per_pass(self) -> int:
        """Most images of a forward pass where their number does not change what comes out."""

    def loss(self, model: Forward, batch: Batch, training: Training | None = None) -> Loss:
        """One forward pass, and the loss to minimise, as far as `training` shapes it."""

    def predict(self, model: Forward, batch: Batch) -> Any:
        """One forward pass: outputs for `Metric.update` and, of a teacher, for `distillation`."""

    def distillation(self, outputs: Any, taught: Any, temperature: float) -> Tensor:
        """How far outputs are from a teacher's for the same batch, mean over the batch."""

    @property
    def metric_spec(self) -> MetricSpec:
        """What the metric's number means."""

    def metric(self) -> Metric | SharedMetric | WholeMetric:
        """A new metric that has counted nothing."""


class Regulariser(Protocol):
    """What a sparsify stage does during training; methods with such a stage provide one."""

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Called after the backward pass, before the optimiser's step."""

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Called after the optimiser's step."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold: tensors, numbers, text, lists and mappings of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


@runtime_checkable
class Listener(Protocol):
    """A regulariser that needs the passes themselves: it hangs hooks on the model, and takes them off."""

    def listening(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Within it the passes of the model are heard; afterwards all hooks are gone, even if training has failed."""


def listening(regulariser: Regulariser | None, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """The context in which a model trains under this regulariser."""
    return regulariser.listening(model) if isinstance(regulariser, Listener) else contextlib.nullcontext()
