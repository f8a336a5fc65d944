"""Models that are built by more than one call of their package with plain options."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn


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


class _Reconstructing(nn.Module):
    """An auto-encoder that decodes the mean of its code; in its own forward pass it draws a code at random."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        mean, _ = self.model.encode(x)
        decoded: Tensor = self.model.decode(mean)
        return decoded


def monai_autoencoder(**options: Any) -> nn.Module:
    """MONAI's variational auto-encoder, without chance."""
    return _Reconstructing(importlib.import_module("monai.networks.nets").AutoencoderKL(**options))
