"""A task is tried once, on a few images, before a search begins: what is wrong with it is said in one line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoprune.errors import AutopruneError, DataError, InputError, ModelError, first_line
from autoprune.recipe import Training
from autoprune.tasks.base import Labelled, Split, Task
from autoprune.training.batch_structure import describe_structure, images_in
from autoprune.training.protocols import Batch, Loss, WholeMetric
from autoprune.training.seeds import seeded_randomness
from autoprune.training.strided_convolutions import SafeStrides

#: Images that a task is tried on.
IMAGES = 8


def check_task(task: Task, model: nn.Module, training: Training | None = None) -> None:
    """Train a copy of the model for one step on the CPU, and measure it on one batch.

    Args:
        model: the task's dense model.
        training: also asked for what a recipe says of the loss: label smoothing, distillation.

    Raises:
        InputError: the data are empty, the model cannot run on them, the loss is no finite scalar or has no gradient,
            the metric cannot use the outputs, or the task does not know what the recipe asks for.
    """
    twin = copy.deepcopy(model).cpu()
    measured = first_batch(task.validation, "validation", task)
    _check_alike(first_batch(task.train, "train", task), measured, task)
    batch = first_batch(task.train, "train", task, seed=0)  # as trainings see it: mixed images have other targets
    with seeded_randomness(0, "cpu"):
        loss = check_loss(task, twin, batch, training)
        _check_gradients(twin, loss.value)
        _check_metric(task, twin.eval(), measured)
        if training is not None and training.distill > 0:
            _check_distillation(task, loss, training)


def check_drawn_anew(task: Task, model: nn.Module) -> None:
    """See that `build` draws weights, and does not hand out trained ones.

    Args:
        model: the task's dense model.

    Raises:
        ModelError: a weight is the same whatever the seed, and the same as the trained one.
    """
    trained = dict(model.named_parameters())
    first, second = (dict(task.build(seed).named_parameters()) for seed in (1, 2))
    for name, weight in trained.items():
        constant = bool((weight == weight.flatten()[0]).all())  # norms begin with ones and zeros
        if not constant and torch.equal(weight, first[name]) and torch.equal(first[name], second[name]):
            allowed = "a model given as a function that builds it with new weights"
            raise ModelError(
                f"{name!r} keeps its trained values from scratch", where="weights: scratch", allowed=allowed
            )


def first_batch(split: Split, name: str, task: Task, seed: int | None = None) -> Batch:
    """The first images of a split, augmented with this seed; raises `DataError` if it has none."""
    count = min(len(split), task.images_per_pass, IMAGES)
    batch = next(iter(split.batches(torch.arange(count), count, seed=seed)), None) if count else None
    if batch is None:
        raise DataError(f"the {name} data are empty", where="task", allowed="one image or more")
    if images_in(batch) != count:
        what = f"a batch of {count} items holds {images_in(batch)} images"
        raise DataError(what, where=f"the {name} data", allowed="tensors with a row per item, lists with an entry")
    return batch


def _check_alike(trained: Batch, measured: Batch, task: Task) -> None:
    """See that both splits yield the same kinds of things."""
    if isinstance(task.train, Labelled):  # has checked its labels itself: of images that a loader mixes they are shares
        trained, measured = trained[0], measured[0]
    expected, found = describe_structure(trained), describe_structure(measured)
    if found != expected:
        raise DataError(f"a batch of validation is {found}", where="task", allowed=f"{expected}, as of train")


def check_loss(task: Task, model: nn.Module, batch: Batch, training: Training | None = None) -> Loss:
    """The loss of a batch in training mode; raises `InputError` unless it is a finite scalar with a gradient."""
    with _explained("the loss"), warnings.catch_warnings(), SafeStrides():
        warnings.filterwarnings("error", "Using a target size")  # torch broadcasts: each output meets all targets
        loss = task.loss(model.train(), batch, training)
    value = loss.value
    if not isinstance(value, Tensor) or value.numel() != 1 or value.dim():
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"the loss is {found}", where="task", allowed="a scalar tensor")
    if not torch.isfinite(value):
        raise InputError(f"the loss of the dense model is {value.item()}", where="task", allowed="a finite number")
    if not value.requires_grad:
        allowed = "a loss made of the model's outputs by differentiable operations"
        raise InputError("the loss has no gradient", where="task", allowed=allowed)
    return loss


def _check_gradients(model: nn.Module, value: Tensor) -> None:
    with _explained("the loss' gradient"):
        value.backward()
    if all(parameter.grad is None for parameter in model.parameters()):
        raise InputError("the loss does not depend on the model's weights", where="task")


def _check_metric(task: Task, model: nn.Module, batch: Batch) -> None:
    """See that the metric takes what the model gives; what it is worth is only known of all images."""
    metric = task.metric()
    if isinstance(metric, WholeMetric):
        return
    with _explained("the metric"), torch.inference_mode():
        metric.update(task.predict(model, batch), batch)


def _check_distillation(task: Task, loss: Loss, training: Training) -> None:
    with _explained("distillation"):
        task.distillation(loss.outputs, loss.outputs, training.temperature)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Within it whatever fails is said in one line."""
    try:
        yield
    except AutopruneError:
        raise
    except Exception as error:  # models, losses and metrics of users may raise anything
        raise ModelError(f"{what} fails: {type(error).__name__}: {first_line(error, 200)}", where="task") from error
