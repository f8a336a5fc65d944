"""Small networks with odd widths that tests trace and cut; every one is a way in which channels can be coupled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(c_in: int, c_out: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution without padding, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, bias=False, groups=groups), nn.BatchNorm2d(c_out), nn.ReLU()
    )


class Chain(nn.Module):
    """Two convolutions and a linear layer behind a flatten."""

    def __init__(self, a: int = 7, b: int = 11) -> None:
        super().__init__()
        self.first, self.second = block(3, a), block(a, b)
        self.head = nn.Linear(b * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x))[:, :, :2, :2].flatten(1))


class Residual(nn.Module):
    """A stream that two branches add to."""

    def __init__(self, stream: int = 7, inner: int = 11) -> None:
        super().__init__()
        self.stem = block(3, stream, 1)
        self.a1, self.a2 = block(stream, inner, 1), nn.Conv2d(inner, stream, 1)
        self.b1, self.b2 = block(stream, inner, 1), nn.Conv2d(inner, stream, 1)
        self.head = nn.Linear(stream, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.a2(self.a1(x)))
        x = F.relu(x + self.b2(self.b1(x)))
        return self.head(x.mean((2, 3)))


class Concat(nn.Module):
    """Dense connections: every layer reads all before it."""

    def __init__(self, growth: int = 7, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block(3 + growth * i, growth, 1) for i in range(layers))
        self.head = nn.Linear(3 + growth * layers, 5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x.mean((2, 3)))


class Depthwise(nn.Module):
    """Expand, depthwise, squeeze-excite, project."""

    def __init__(self, width: int = 13, squeezed: int = 3) -> None:
        super().__init__()
        self.expand, self.depthwise = block(3, width, 1), block(width, width, 3, groups=width)
        self.reduce, self.excite = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)
        self.project = block(width, 7, 1)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.expand(x))
        gate = torch.sigmoid(self.excite(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.head(self.project(x * gate).mean((2, 3)))


class Grouped(nn.Module):
    """A grouped convolution between two plain ones."""

    def __init__(self, groups: int = 3, offset: int = 5) -> None:
        super().__init__()
        self.before = block(3, groups * offset, 1)
        self.grouped = block(groups * offset, groups * 7, 3, groups=groups)
        self.after = block(groups * 7, 11, 1)
        self.head = nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.grouped(self.before(x))).mean((2, 3)))


class Shuffle(nn.Module):
    """Split in two, transform one half, concatenate, shuffle the channels."""

    def __init__(self, half: int = 7) -> None:
        super().__init__()
        self.stem = block(3, 2 * half, 1)
        self.branch = block(half, half, 1)
        self.after = block(2 * half, 11, 1)
        self.head = nn.Linear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.after(x).mean((2, 3)))


class Shared(nn.Module):
    """One layer used twice, and upsampling by a transposed convolution."""

    def __init__(self, width: int = 11) -> None:
        super().__init__()
        self.stem = block(3, width, 1)
        self.shared = nn.Conv2d(width, width, 1)
        self.up = nn.ConvTranspose2d(width, 7, 2, stride=2)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.tanh(self.shared(torch.tanh(self.shared(x))))
        return self.head(self.up(x).mean((2, 3)))


class Between(nn.Module):
    """Something between two convolutions, of `width` and 5 filters."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 7) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Conv2d(3, width, 1), nn.Conv2d(width, 5, 1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(x))).mean((2, 3))


NETS = {net.__name__: net for net in (Chain, Residual, Concat, Depthwise, Grouped, Shuffle, Shared)}


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The net in eval mode with random statistics, scales and shifts, so that nothing cancels by accident."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator) / 3)
        elif isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
            for weight in module.parameters():
                weight.data.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    return net.eval()


def image(size: int = 9, batch: int = 2) -> Tensor:
    """A fixed random batch (batch, 3, size, size)."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
