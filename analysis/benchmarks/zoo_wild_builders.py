"""Models that are built by more than one call of their package with plain options."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn


def transformers_model(model: str, config: dict[str, Any]) -> nn.Module:
    """A class of transformers with its configuration; options of the configuration by name."""
    made = getattr(importlib.import_module("transformers"), model)
    built: nn.Module = made(made.config_class(**config))
    return built


def efficientnet(name: str) -> nn.Module:
    """By its name, with random weights."""
    built: nn.Module = importlib.import_module("efficientnet_pytorch").EfficientNet.from_name(name)
    return built


def nnunet(name: str, dimensions: int, **options: Any) -> nn.Module:
    """A network of nnU-Net as its planner writes it: convolutions and instance norms of so many dimensions."""
    made = getattr(importlib.import_module("dynamic_network_architectures.architectures.unet"), name)
    conv, norm = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[dimensions - 2]
    built: nn.Module = made(
        **options, conv_op=conv, conv_bias=True, norm_op=norm, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU
    )
    return built
