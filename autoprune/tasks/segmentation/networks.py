"""Segmentation networks by name: the built-in U-Net and torchvision's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from autoprune.errors import AutopruneError, ModelError, check_name
from autoprune.tasks.segmentation.unet import UNet


def check_network(name: str, where: str) -> str:
    """The name, without its library.

    Raises:
        ModelError: there is no such network.
    """
    try:
        return check_name(name.removeprefix("torchvision/"), ["unet", *_torchvision_names()], kind="model", where=where)
    except AutopruneError as error:
        raise ModelError(error.what, where=where, allowed=f"{error.allowed}, factory") from None


def build_network(name: str, shape: Sequence[int], classes: int, arguments: Mapping[str, Any], where: str) -> nn.Module:
    """The network of that name: images (N, C, H, W) to logits (N, classes, H, W), or torchvision's mapping of them.

    Args:
        shape: (C, H, W) of an image.
        arguments: passed on to its constructor. torchvision's networks start without trained weights unless these say
            otherwise.

    Raises:
        ModelError: there is no such network, or its constructor refuses the arguments.
    """
    short = check_network(name, where)
    try:
        return UNet(shape[0], classes, **arguments) if short == "unet" else _of_torchvision(short, classes, arguments)
    except AutopruneError:
        raise
    except Exception as error:  # any constructor; the reason is the user's to read
        raise ModelError(f"{name} cannot be built: {error}", where=where) from error


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(models.segmentation))


def _of_torchvision(name: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    # its default weights of the backbone would be downloaded
    return models.get_model(name, **{"num_classes": classes, "weights_backbone": None, **arguments})
