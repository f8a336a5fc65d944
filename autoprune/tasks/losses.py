"""Losses that users name or bring: functions of outputs and targets, names in torch.nn, or the model's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from autoprune.errors import AutopruneError, InputError, ModelError
from autoprune.recipe import Training
from autoprune.schema import expect_mapping
from autoprune.tasks.user_code import load_object
from autoprune.training.distillation import distillation

#: In place of a loss: the model takes the targets in training mode and returns its losses.
MODEL = "model"
ALLOWED = "a function loss(outputs, targets), module:function, a name in torch.nn or torch.nn.functional, or `model`"


@dataclass(frozen=True, eq=False)
class LossFunction:
    """A loss of outputs and targets.

    Fields:
        name: for messages.
        call: (outputs, targets) -> scalar; modules are moved to the device of the outputs.
        arguments: those it was made with, in plain data.
        by_model: the model computes its losses itself; `call` is not used.
    """

    name: str
    call: Callable[[Any, Any], Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    by_model: bool = False

    def of(self, outputs: Any, targets: Any, training: Training | None) -> Tensor:
        """The loss of a batch; outputs in half precision are made float32.

        Raises:
            InputError: the recipe smooths labels, and this is no cross entropy.
        """
        outputs = tree_map_only(
            Tensor, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, outputs
        )
        smoothing = 0.0 if training is None else training.label_smoothing
        if isinstance(self.call, nn.Module):
            _follow_device(self.call, outputs)
        if not smoothing:
            value: Tensor = self.call(outputs, targets)
            return value
        if not isinstance(self.call, nn.CrossEntropyLoss):
            raise InputError(f"{self.name} has no labels to smooth", where="training.label_smoothing", allowed="0")
        own = self.call
        return F.cross_entropy(outputs, targets, own.weight, ignore_index=own.ignore_index, label_smoothing=smoothing)

    def distance(self, outputs: Any, taught: Any, temperature: float) -> Tensor:
        """How far outputs are from a teacher's, as fits the loss: by classes, by labels, or by values.

        Cross entropy: T^2 KL of the softmax over dimension 1, mean over batch and positions (Hinton et al. 2015).
        Binary cross entropy: the same of each label's two classes. Losses of values: that loss itself.

        Raises:
            InputError: the loss is none of these, or the outputs are no tensor.
        """
        kind = _distance_of(self.call)
        if kind is None or not isinstance(outputs, Tensor):
            what = f"there is no distance to a teacher for {self.name}"
            allowed = (
                "0; or one output and CrossEntropyLoss, BCEWithLogitsLoss, MSELoss, L1Loss, SmoothL1Loss, HuberLoss"
            )
            raise InputError(what, where="training.distill", allowed=allowed)
        return kind(outputs.float(), taught.float(), temperature)


def read_loss(spec: object, where: str) -> LossFunction:
    """The loss that a space file or a user's code gives.

    Args:
        spec: a name, a reference, a mapping {name or function, arguments}, a function, or a module of torch.

    Raises:
        InputError: there is no such loss, or it refuses its arguments.
    """
    if isinstance(spec, Mapping):
        arguments = dict(expect_mapping(spec, where))
        name = arguments.pop("name", None) or arguments.pop("function", None)
        if name is None:
            raise InputError("missing key 'name'", where=where, allowed="name or function, and arguments of it")
        return _made_loss(name, arguments, where)
    if isinstance(spec, str):
        return _made_loss(spec, {}, where)
    if not callable(spec):
        raise InputError(f"a {type(spec).__name__} is no loss", where=where, allowed=ALLOWED)
    return LossFunction(_name_of(spec), spec)


def total_loss(losses: object) -> Tensor:
    """The sum of what a model returns as its losses: a mapping of scalars, an object with `loss`, or one scalar.

    Raises:
        ModelError: it is none of these.
    """
    own = losses.get("loss") if isinstance(losses, Mapping) else getattr(losses, "loss", None)
    if isinstance(own, Tensor):
        return own.float()
    if isinstance(losses, Tensor):
        return losses.float()
    if isinstance(losses, Mapping) and losses and all(isinstance(value, Tensor) for value in losses.values()):
        return torch.stack([value.float().mean() for value in losses.values()]).sum()
    allowed = "a mapping of scalars, an object with `loss`, or a scalar"
    raise ModelError(f"in training the model returns a {type(losses).__name__}", where="loss", allowed=allowed)


def _made_loss(name: object, arguments: Mapping[str, Any], where: str) -> LossFunction:
    if not isinstance(name, str):
        return LossFunction(_name_of(name), _bound(_called(name, where), arguments), arguments)
    if name == MODEL:
        return LossFunction("the model's own losses", _no_call, by_model=True)
    if ":" in name:
        return LossFunction(name, _bound(_called(load_object(name, where), where), arguments), arguments)
    made = getattr(nn, name, None)
    if isinstance(made, type) and issubclass(made, nn.Module) and name.endswith("Loss"):
        return LossFunction(name, _constructed(made, arguments, where), arguments)
    function = getattr(F, name, None)
    if callable(function):
        return LossFunction(name, _bound(function, arguments), arguments)
    raise InputError(f"unknown loss {name!r}", where=where, allowed=ALLOWED)


def _called(given: object, where: str) -> Callable[..., Any]:
    """A loss as it is, or made of its class."""
    loss = given() if isinstance(given, type) else given
    if not callable(loss):
        raise InputError(f"a {type(loss).__name__} is no loss", where=where, allowed=ALLOWED)
    return loss


def _bound(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Callable[[Any, Any], Any]:
    if not arguments:
        return function
    return lambda outputs, targets: function(outputs, targets, **arguments)


def _constructed(made: type[nn.Module], arguments: Mapping[str, Any], where: str) -> nn.Module:
    tensors = {"weight", "pos_weight"}
    given = {key: torch.tensor(item) if key in tensors else item for key, item in arguments.items()}
    try:
        return made(**given)
    except AutopruneError:
        raise
    except Exception as error:  # torch refuses arguments with several types
        raise InputError(f"{made.__name__} refuses its arguments: {error}", where=where) from error


def _no_call(outputs: Any, targets: Any) -> Any:
    raise AssertionError("a model that computes its losses itself is not asked for them here")


def _name_of(loss: object) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


def _follow_device(loss: nn.Module, outputs: Any) -> None:
    held = next(loss.buffers(), None)
    if held is not None and isinstance(outputs, Tensor) and held.device != outputs.device:
        loss.to(outputs.device)


def _distance_of(loss: object) -> Callable[[Tensor, Tensor, float], Tensor] | None:
    if isinstance(loss, nn.CrossEntropyLoss) or loss is F.cross_entropy:
        return _distance_by_classes
    if isinstance(loss, nn.BCEWithLogitsLoss) or loss is F.binary_cross_entropy_with_logits:
        return _distance_by_labels
    of_values = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
    if isinstance(loss, of_values) or loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        return lambda outputs, taught, _temperature: loss(outputs, taught)
    return None


def _distance_by_classes(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Over the classes in dimension 1; each place of a map counts like an image."""
    student, teacher = (logits.movedim(1, -1).flatten(0, -2) for logits in (outputs, taught))
    return distillation(student, teacher, temperature)


def _distance_by_labels(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    student, teacher = outputs / temperature, taught / temperature
    likely = teacher.sigmoid()
    gained = F.binary_cross_entropy_with_logits(student, likely, reduction="none")
    least = F.binary_cross_entropy_with_logits(teacher, likely, reduction="none")
    return (gained - least).mean() * temperature**2
