"""Networks in which layers read what another layer makes."""

from __future__ import annotations

from nets import block
from torch import Tensor, nn


def depthwise_between() -> nn.Sequential:
    """Expand, depthwise with padding, project."""
    depthwise = nn.Conv2d(13, 13, 3, padding=1, groups=13, bias=False)
    return nn.Sequential(*block(3, 13, 1), depthwise, nn.BatchNorm2d(13), nn.ReLU6(), nn.Conv2d(13, 7, 1))


class TwoReaders(nn.Module):
    """One layer that two others read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = block(3, 13), nn.Conv2d(13, 7, 3, stride=2), nn.Conv2d(13, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.a(x).flatten(1), self.b(x).flatten(1)
