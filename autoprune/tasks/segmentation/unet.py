"""A small U-Net: a step down per width and as many up, with a shortcut across at every size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.errors import ModelError


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with batch norm and ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        first, second = (nn.Conv2d(width, c_out, 3, padding=1, bias=False) for width in (c_in, c_out))
        super().__init__(
            first, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True), second, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
        )


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. 2015 with padded convolutions and nearest upsampling, for images of any size.

    Args:
        channels: of an image.
        classes: of a pixel.
        widths: channels at full size, at half, at a quarter, ...
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ModelError(f"widths {list(widths)!r}", where="unet", allowed="one width per size, each at least 1")
        self.down = nn.ModuleList(DoubleConv(*pair) for pair in pairwise((channels, *widths)))
        self.up = nn.ModuleList(DoubleConv(wide + narrow, narrow) for narrow, wide in pairwise(widths))
        self.classifier = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> logits (N, classes, H, W)."""
        across: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if across else x)
            across.append(x)
        for block, skipped in zip(reversed(self.up), reversed(across[:-1]), strict=True):
            x = block(torch.cat([skipped, F.interpolate(x, skipped.shape[2:])], 1))
        return self.classifier(x)
