"""Detectors by name: the built-in small RetinaNet and torchvision's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from autoprune.errors import AutopruneError, ModelError, check_name
from autoprune.tasks.detection.retinanet import small_retinanet

#: Networks that ask for more than boxes.
_NEED_MORE = ("keypointrcnn", "maskrcnn")


def check_network(name: str, where: str) -> str:
    """The name, without its library.

    Raises:
        ModelError: there is no such detector.
    """
    known = ["small_retinanet", *_torchvision_names()]
    try:
        return check_name(name.removeprefix("torchvision/"), known, kind="model", where=where)
    except AutopruneError as error:
        raise ModelError(error.what, where=where, allowed=f"{error.allowed}, factory") from None


def build_network(name: str, shape: Sequence[int], classes: int, arguments: Mapping[str, Any], where: str) -> nn.Module:
    """The detector of that name, with torchvision's calling convention.

    Args:
        shape: (C, H, W) of an image.
        classes: the background counts as one.
        arguments: passed on to its constructor. torchvision's detectors start without trained weights unless these say
            otherwise.

    Raises:
        ModelError: there is no such detector, or its constructor refuses the arguments.
    """
    short = check_network(name, where)
    try:
        if short == "small_retinanet":
            return small_retinanet(shape, classes, **arguments)
        return _of_torchvision(short, classes, arguments)
    except AutopruneError:
        raise
    except Exception as error:  # any constructor; the reason is the user's to read
        raise ModelError(f"{name} cannot be built: {error}", where=where) from error


def _torchvision_names() -> list[str]:
    from torchvision import models

    return [name for name in models.list_models(models.detection) if not name.startswith(_NEED_MORE)]


def _of_torchvision(name: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    # its default weights of the backbone would be downloaded
    model: nn.Module = models.get_model(name, **{"num_classes": classes, "weights_backbone": None, **arguments})
    _check_arguments(arguments, models.get_model_builder(name), model)
    return model


def _check_arguments(arguments: Mapping[str, Any], builder: Callable[..., Any], model: nn.Module) -> None:
    """Refuse what nothing has read: torchvision's detectors take any keyword and drop those that they do not know."""
    readers = [builder, type(model).__init__, GeneralizedRCNNTransform.__init__]
    known = {name for reader in readers for name in inspect.signature(reader).parameters} - {"self", "kwargs"}
    for name in arguments:
        check_name(name, sorted(known), kind="argument")
