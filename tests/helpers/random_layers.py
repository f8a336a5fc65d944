"""Kinds of nodes with weights, from plain convolutions to whole blocks of known architectures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from random_nodes import (
    MOST_PIXELS,
    OFFSETS,
    WIDTHS,
    Options,
    Shape,
    always,
    by_divisor,
    divisors,
    kind,
    one,
    when,
    windows,
)
from torch import Tensor, nn
from torch.nn import functional as F


@kind("conv", lambda s: one(width=st.sampled_from(WIDTHS), window=windows(s), bias=st.booleans()))
def conv(shape: Shape, width: int, window: tuple[int, int, int, int], bias: bool, groups: int = 1) -> nn.Module:
    kernel, stride, padding, dilation = window
    return nn.Conv2d(shape[0], width, kernel, stride, padding, dilation, groups, bias)


def grouped_options(shape: Shape) -> Options | None:
    options = by_divisor(
        lambda g: one(
            width=st.sampled_from(OFFSETS).map(lambda n: g * n), window=windows(shape), bias=st.booleans(), groups=g
        )
    )
    return options(shape)


kind("grouped", grouped_options)(conv)


@kind("depthwise", lambda s: one(multiplier=st.sampled_from((1, 2)), window=windows(s), bias=st.booleans()))
def depthwise(shape: Shape, multiplier: int, window: tuple[int, int, int, int], bias: bool) -> nn.Module:
    return conv(shape, shape[0] * multiplier, window, bias, groups=shape[0])


def transposed_options(shape: Shape) -> Options | None:
    if 4 * shape[1] * shape[2] > MOST_PIXELS:
        return one(offset=st.sampled_from(OFFSETS), kernel=1, stride=1, groups=1, bias=st.booleans())
    return one(
        offset=st.sampled_from(OFFSETS),
        kernel=st.sampled_from((2, 3)),
        stride=2,
        groups=st.sampled_from([1, *divisors(shape[0])]),
        bias=st.booleans(),
    )


@kind("transposed", transposed_options)
def transposed(shape: Shape, offset: int, kernel: int, stride: int, groups: int, bias: bool) -> nn.Module:
    return nn.ConvTranspose2d(shape[0], groups * offset, kernel, stride, groups=groups, bias=bias)


class OnLast(nn.Module):
    """A module that works on the last dimension, with the channels there."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@kind("linear", always(width=st.sampled_from(WIDTHS), bias=st.booleans()))
def linear(shape: Shape, width: int, bias: bool) -> nn.Module:
    return OnLast(nn.Linear(shape[0], width, bias))


@kind("einsum", always(width=st.sampled_from(WIDTHS)))
class Einsum(nn.Module):
    """A matrix of its own over the channels, no layer."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.empty(width, shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,oc->nohw", x, self.matrix)


@kind("batch_norm", always(affine=st.booleans(), track_running_stats=st.booleans()))
def batch_norm(shape: Shape, **options: bool) -> nn.Module:
    return nn.BatchNorm2d(shape[0], **options)


@kind("instance_norm", when(lambda s: s[1] * s[2] > 1, affine=st.booleans(), track_running_stats=st.booleans()))
def instance_norm(shape: Shape, **options: bool) -> nn.Module:
    return nn.InstanceNorm2d(shape[0], **options)


@kind("group_norm", lambda s: one(groups=st.sampled_from([1, *divisors(s[0]), s[0]]), affine=st.booleans()))
def group_norm(shape: Shape, groups: int, affine: bool) -> nn.Module:
    return nn.GroupNorm(groups, shape[0], affine=affine)


@kind("layer_norm", always(elementwise_affine=st.booleans()))
def layer_norm(shape: Shape, **options: bool) -> nn.Module:
    return OnLast(nn.LayerNorm(shape[0], **options))


@kind("rms_norm", always(elementwise_affine=st.booleans()))
def rms_norm(shape: Shape, **options: bool) -> nn.Module:
    return OnLast(nn.RMSNorm(shape[0], **options))


@kind("response_norm", always())
class ResponseNorm(nn.Module):
    """Channels compete by their norm over the image (ConvNeXt-V2)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(shape[0], 1, 1))
        self.shift = nn.Parameter(torch.empty(shape[0], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(dim=(2, 3), keepdim=True)
        return x + self.gain * (x * (norm / (norm.mean(1, keepdim=True) + 1e-6))) + self.shift


@kind("prelu", always(shared=st.booleans()))
def prelu(shape: Shape, shared: bool) -> nn.Module:
    return nn.PReLU(1 if shared else shape[0])


class OwnParameter(nn.Module):
    """A parameter that meets the value entry by entry."""

    def __init__(self, sizes: Shape, *, times: bool) -> None:
        super().__init__()
        self.own, self.times = nn.Parameter(torch.empty(sizes)), times

    def forward(self, x: Tensor) -> Tensor:
        return x * self.own if self.times else x + self.own


kind("layer_scale", always())(lambda shape: OwnParameter((shape[0], 1, 1), times=True))
kind("position", always())(lambda shape: OwnParameter(shape, times=False))


@kind("squeeze_excite", always(squeezed=st.sampled_from((3, 5))))
class SqueezeExcite(nn.Module):
    """A gate per channel made of the means of all."""

    def __init__(self, shape: Shape, squeezed: int) -> None:
        super().__init__()
        self.reduce, self.excite = nn.Conv2d(shape[0], squeezed, 1), nn.Conv2d(squeezed, shape[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


@kind("residual", always(inner=st.sampled_from((5, 7)), groups=st.sampled_from((1, 5))))
class Residual(nn.Module):
    """The value plus what a bottleneck makes of it."""

    def __init__(self, shape: Shape, inner: int, groups: int) -> None:
        super().__init__()
        groups = groups if inner % groups == 0 else 1
        self.reduce, self.norm = nn.Conv2d(shape[0], inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.middle = nn.Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.expand = nn.Conv2d(inner, shape[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(F.relu(self.middle(F.relu(self.norm(self.reduce(x))))))


@kind("split_attention", always(squeezed=st.sampled_from((3, 5)), width=st.sampled_from((5, 7))))
class SplitAttention(nn.Module):
    """Two branches of one convolution, weighed against each other per channel (ResNeSt)."""

    def __init__(self, shape: Shape, squeezed: int, width: int) -> None:
        super().__init__()
        self.branches = nn.Conv2d(shape[0], 2 * width, 1)
        self.reduce, self.excite = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.branches(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w)
        weights = self.excite(F.relu(self.reduce(x.sum(1).mean((2, 3), keepdim=True))))
        return (x * weights.view(n, 2, c // 2, 1, 1).softmax(1)).sum(1)


def heads(make: Callable[[int], Options]) -> Callable[[Shape], Options | None]:
    """Attention over at most 49 pixels, with a number of heads that divides the channels."""

    def options(shape: Shape) -> Options | None:
        fits = [1, *divisors(shape[0])]
        return st.sampled_from(fits).flatmap(make) if shape[1] * shape[2] <= 49 else None

    return options


@kind("multihead_attention", heads(lambda n: one(heads=n, weights=st.booleans(), bias=st.booleans())), free=False)
class PixelAttention(nn.Module):
    """torch's own attention, every pixel a token."""

    def __init__(self, shape: Shape, heads: int, weights: bool, bias: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(shape[0], heads, bias=bias, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed = self.attention(tokens, tokens, tokens, need_weights=self.weights)[0]
        return mixed.transpose(1, 2).unflatten(2, x.shape[2:])


@kind("own_attention", heads(lambda n: one(heads=n, fused=st.booleans())), free=False)
class OwnAttention(nn.Module):
    """Attention as vision transformers write it: one layer for queries, keys and values."""

    def __init__(self, shape: Shape, heads: int, fused: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(shape[0], 3 * shape[0]), nn.Linear(shape[0], shape[0])
        self.heads, self.fused, self.scale = heads, fused, (shape[0] // heads) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).reshape(n, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            mixed = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, h * w, -1)).transpose(1, 2).unflatten(2, (h, w))


@kind("hierarchy", by_divisor(lambda n: one(parts=n)))
class Hierarchy(nn.Module):
    """Every part of the channels is convolved together with what became of the part before (Res2Net)."""

    def __init__(self, shape: Shape, parts: int) -> None:
        super().__init__()
        width = shape[0] // parts
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(parts - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = x.chunk(len(self.convs) + 1, 1)
        done = [first]
        for part, conv in zip(others, self.convs, strict=True):
            done.append(F.relu(conv(part + done[-1])))
        return torch.cat(done, 1)


@kind("ghost", always(width=st.sampled_from(WIDTHS), cropped=st.booleans()), free=False)
class Ghost(nn.Module):
    """Half the channels by a convolution, the other half cheaply from these (GhostNet), cropped to the width wanted."""

    def __init__(self, shape: Shape, width: int, cropped: bool) -> None:
        super().__init__()
        made = (width + 1) // 2
        self.primary, self.cheap = nn.Conv2d(shape[0], made, 1), nn.Conv2d(made, made, 3, padding=1, groups=made)
        self.width = width if cropped else None

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.primary(x))
        return torch.cat([first, F.relu(self.cheap(first))], 1)[:, : self.width]


@kind("transformer", heads(lambda n: one(heads=n, inner=st.sampled_from((5, 11)))), free=False)
class Transformer(nn.Module):
    """Attention and a small network on every pixel, both beside a stream."""

    def __init__(self, shape: Shape, heads: int, inner: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(shape[0]), nn.LayerNorm(shape[0])
        self.attention = nn.MultiheadAttention(shape[0], heads, batch_first=True)
        self.widen, self.narrow = nn.Linear(shape[0], inner), nn.Linear(inner, shape[0])

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        normed = self.before(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        tokens = tokens + self.narrow(F.gelu(self.widen(self.between(tokens))))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class Flattened(nn.Module):
    """A convolution over one or three dimensions of an image."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.conv, nn.Conv1d):
            return self.conv(x.flatten(2)).unflatten(2, x.shape[2:])
        return self.conv(x.unsqueeze(2)).squeeze(2)


@kind("other_conv", always(dimensions=st.sampled_from((1, 3)), width=st.sampled_from(WIDTHS)))
def other_conv(shape: Shape, dimensions: int, width: int) -> nn.Module:
    conv = (
        nn.Conv1d(shape[0], width, 3, padding=1)
        if dimensions == 1
        else nn.Conv3d(shape[0], width, (1, 3, 3), padding=(0, 1, 1))
    )
    return Flattened(conv)


@kind("weight_norm", always(width=st.sampled_from(WIDTHS)))
def weight_norm(shape: Shape, width: int) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(shape[0], width, 1))


@kind("channel_conv", when(lambda s: s[0] > 2), free=False)
class ChannelConv(nn.Module):
    """A gate made by a convolution along the channels (ECA)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x.mean((2, 3))[:, None]))[:, 0, :, None, None]


@kind("pixel_gate", always())
class PixelGate(nn.Module):
    """A gate per pixel made of the mean and the largest of all channels (CBAM)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


@kind("standardised", always(width=st.sampled_from(WIDTHS)))
class Standardised(nn.Module):
    """A convolution whose filters are normalised before use (NFNet)."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        mean, var = weight.mean((1, 2, 3), keepdim=True), weight.var((1, 2, 3), keepdim=True)
        return F.conv2d(x, (weight - mean) / (var + 1e-3).sqrt(), self.conv.bias, padding=1)


@kind("tied", always(width=st.sampled_from(WIDTHS)))
class Tied(nn.Module):
    """The same weights forth and back, as in an autoencoder."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(torch.tanh(self.conv(x)), self.conv.weight)


@kind("blur", when(lambda s: min(s[1:]) >= 3, fixed=st.booleans()), free=False)
class Blur(nn.Module):
    """One fixed kernel for every channel; their number is read off the tensor or written down (`fixed`)."""

    def __init__(self, shape: Shape, fixed: bool) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16)
        self.channels = shape[0] if fixed else None

    def forward(self, x: Tensor) -> Tensor:
        channels = self.channels or x.shape[1]
        return F.conv2d(x, self.kernel.expand(channels, 1, 3, 3), groups=channels)
