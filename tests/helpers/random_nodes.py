"""The nodes that random networks are made of: one kind for every way in which channels are coupled, and how to draw it.

The modules read sizes off the tensors they get, as good code does, but for the kinds that are there to be hard-coded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]
Options = st.SearchStrategy[list[dict[str, Any]]]
WIDEST, MOST_PIXELS = 64, 81


@dataclass(frozen=True)
class Kind:
    """How to draw the options of a node on a source of some shape (None: does not apply) and how to build its module.

    Fields:
        build: (source shape, **options) -> module that takes the sources.
        options: source shape -> strategy of the options of one node, or of several on the same source (parts).
        partners: which further sources a node takes: `none`, `same` shape or same `pixels`.
        free: prunes whatever meets it, if sources are free: nothing is frozen in a network of such nodes.
    """

    build: Callable[..., nn.Module]
    options: Callable[[Shape], Options | None]
    partners: str
    free: bool


KINDS: dict[str, Kind] = {}


def kind(
    name: str, options: Callable[[Shape], Options | None], *, partners: str = "none", free: bool = True
) -> Callable[[Any], Any]:
    """Decorator: the class or function that builds nodes of this kind."""

    def add(build: Any) -> Any:
        KINDS[name] = Kind(build, options, partners, free)
        return build

    return add


# ---- options ---------------------------------------------------------------------------------------------------------

WIDTHS = (7, 14, 15, 12, 10, 11, 13, 5, 21)
OFFSETS = (3, 5, 7)
WINDOWS = ((1, 1, 0, 1), (3, 1, 1, 1), (3, 1, 0, 1), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 2, 2), (3, 1, 0, 2))


def one(**options: Any) -> Options:
    """Options of a single node; plain values are constants."""
    drawn = {name: v if isinstance(v, st.SearchStrategy) else st.just(v) for name, v in options.items()}
    return st.fixed_dictionaries(drawn).map(lambda values: [values])


def always(**options: Any) -> Callable[[Shape], Options]:
    return lambda _shape: one(**options)


def when(condition: Callable[[Shape], bool], **options: Any) -> Callable[[Shape], Options | None]:
    return lambda shape: one(**options) if condition(shape) else None


def windows(shape: Shape) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """(kernel, stride, padding, dilation) that fit into the image."""
    side = min(shape[1:])
    fits = [w for w in WINDOWS[1:] if side + 2 * w[2] >= (w[0] - 1) * w[3] + 1 and side // w[1] >= 2]
    return st.sampled_from([WINDOWS[0], *fits])


def divisors(channels: int, among: tuple[int, ...] = (2, 3)) -> list[int]:
    return [n for n in among if channels % n == 0 and channels > n]


def by_divisor(make: Callable[[int], Options], among: tuple[int, ...] = (2, 3)) -> Callable[[Shape], Options | None]:
    """Options that depend on a divisor of the number of channels; does not apply where there is none."""

    def options(shape: Shape) -> Options | None:
        fits = divisors(shape[0], among)
        return st.sampled_from(fits).flatmap(make) if fits else None

    return options


# ---- modules ---------------------------------------------------------------------------------------------------------


class Apply(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor], **constants: Any) -> None:
        super().__init__()
        self.function, self.constants = function, constants

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors, **self.constants)


def stateless(
    name: str, options: Callable[[Shape], Options | None], *, partners: str = "none", free: bool = True
) -> Callable[[Any], Any]:
    """Decorator: a function of tensors and options is a kind of node without weights."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        kind(name, options, partners=partners, free=free)(lambda _shape, **chosen: Apply(function, **chosen))
        return function

    return add


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


@kind("weight_norm", always(width=st.sampled_from(WIDTHS)), free=False)
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


# ---- without weights -------------------------------------------------------------------------------------------------

ACTIVATIONS = ("relu", "silu", "gelu", "hardswish", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "relu6")


@stateless("activation", always(name=st.sampled_from(ACTIVATIONS)))
def activation(x: Tensor, name: str) -> Tensor:
    return getattr(F, name)(x)


@stateless("pool", when(lambda s: min(s[1:]) >= 3, how=st.sampled_from(("max", "avg", "smooth", "adaptive", "max3"))))
def pool(x: Tensor, how: str) -> Tensor:
    pools = {
        "max": partial(F.max_pool2d, kernel_size=2),
        "avg": partial(F.avg_pool2d, kernel_size=2),
        "smooth": partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1),
        "max3": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
        "adaptive": partial(F.adaptive_avg_pool2d, output_size=(3, 2)),
    }
    return pools[how](x)


@stateless(
    "upsample",
    when(
        lambda s: 4 * s[1] * s[2] <= MOST_PIXELS,
        mode=st.sampled_from(("nearest", "bilinear", "bicubic", "nearest-exact")),
    ),
)
def upsample(x: Tensor, mode: str) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode=mode)


@stateless("shuffle", by_divisor(lambda g: one(groups=g)))
def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def parts_options(shape: Shape) -> Options | None:
    fits = divisors(shape[0], (2, 3))
    return st.sampled_from(fits).map(lambda n: [{"parts": n, "part": i} for i in range(n)]) if fits else None


@stateless("chunk", parts_options)
def chunk(x: Tensor, parts: int, part: int) -> Tensor:
    return x.chunk(parts, 1)[part]


@stateless("split", parts_options)
def split(x: Tensor, parts: int, part: int) -> Tensor:
    return torch.split(x, x.shape[1] // parts, 1)[part]


@stateless("pixel_shuffle", when(lambda s: s[0] % 4 == 0 and s[0] > 4 and 4 * s[1] * s[2] <= MOST_PIXELS))
def pixel_shuffle(x: Tensor) -> Tensor:
    return F.pixel_shuffle(x, 2)


@stateless("pixel_unshuffle", when(lambda s: s[1] % 2 == 0 and s[2] % 2 == 0 and 4 * s[0] <= WIDEST))
def pixel_unshuffle(x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, 2)


@stateless("gated_linear_unit", when(lambda s: s[0] % 2 == 0 and s[0] > 2))
def gated_linear_unit(x: Tensor) -> Tensor:
    return F.glu(x, 1)


@stateless("maxout", by_divisor(lambda n: one(pieces=n)))
def maxout(x: Tensor, pieces: int) -> Tensor:
    return x.unflatten(1, (pieces, -1)).amax(1)


@stateless("repeat", when(lambda s: 2 * s[0] <= WIDEST, interleaved=st.booleans()), free=False)
def repeat(x: Tensor, interleaved: bool) -> Tensor:
    return x.repeat_interleave(2, 1) if interleaved else x.repeat(1, 2, 1, 1)


@stateless("add", always(), partners="same")
def add(*values: Tensor) -> Tensor:
    return reduce(torch.add, values)


@stateless("multiply", always(), partners="same")
def multiply(*values: Tensor) -> Tensor:
    return reduce(lambda a, b: torch.tanh(a) * b, values)


@stateless("maximum", always(), partners="same")
def maximum(*values: Tensor) -> Tensor:
    return reduce(torch.maximum, values)


@stateless("stack_mean", always(), partners="same")
def stack_mean(*values: Tensor) -> Tensor:
    return torch.stack(values).mean(0)


@stateless("concat", when(lambda s: s[0] <= WIDEST // 3), partners="pixels")
def concat(*values: Tensor) -> Tensor:
    return torch.cat(values, 1)


# ---- without weights, and with something that may hold channels fast ------------------------------------------------


@stateless(
    "option_a", always(before=st.integers(0, 4), after=st.integers(1, 4), stride=st.sampled_from((1, 2))), free=False
)
def option_a(x: Tensor, before: int, after: int, stride: int) -> Tensor:
    """Zeros for new channels, every other pixel (the parameter-free shortcut of ResNets for CIFAR)."""
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, after))


@stateless("half", when(lambda s: s[0] > 3, second=st.booleans()), free=False)
def half(x: Tensor, second: bool) -> Tensor:
    middle = x.shape[1] // 2
    return x[:, middle:] if second else x[:, :middle]


@stateless("uneven_chunk", when(lambda s: s[0] % 2 == 1 and s[0] > 3, part=st.sampled_from((0, 1))), free=False)
def uneven_chunk(x: Tensor, part: int) -> Tensor:
    return x.chunk(2, 1)[part]


@stateless("every_other", when(lambda s: s[0] > 3, start=st.sampled_from((0, 1))), free=False)
def every_other(x: Tensor, start: int) -> Tensor:
    return x[:, start::2]


@stateless("fixed_slice", when(lambda s: s[0] > 6, start=st.integers(0, 2), stop=st.integers(4, 6)), free=False)
def fixed_slice(x: Tensor, start: int, stop: int) -> Tensor:
    return x[:, start:stop]


@stateless("last_ones", when(lambda s: s[0] > 4, count=st.integers(2, 4)), free=False)
def last_ones(x: Tensor, count: int) -> Tensor:
    return x[:, -count:]


def fixed_split_options(shape: Shape) -> Options | None:
    sizes = st.integers(2, max(2, shape[0] - 2)).map(lambda n: (n, shape[0] - n))
    return sizes.map(lambda s: [{"sizes": s, "part": i} for i in (0, 1)]) if shape[0] > 4 else None


@stateless("fixed_split", fixed_split_options, free=False)
def fixed_split(x: Tensor, sizes: tuple[int, int], part: int) -> Tensor:
    return x.split(list(sizes), 1)[part]


@stateless("fixed_view", lambda s: one(channels=s[0]), free=False)
def fixed_view(x: Tensor, channels: int) -> Tensor:
    return x.reshape(x.shape[0], channels, -1).unflatten(2, x.shape[2:])


@stateless("fixed_order", lambda s: one(order=st.permutations(range(s[0])).map(tuple)), free=False)
def fixed_order(x: Tensor, order: tuple[int, ...]) -> Tensor:
    return x[:, list(order)]


@stateless(
    "across", always(how=st.sampled_from(("softmax", "flip", "roll", "cumsum", "normalize", "sort"))), free=False
)
def across(x: Tensor, how: str) -> Tensor:
    ways = {
        "softmax": partial(torch.softmax, dim=1),
        "flip": partial(torch.flip, dims=(1,)),
        "roll": partial(torch.roll, shifts=1, dims=1),
        "cumsum": partial(torch.cumsum, dim=1),
        "normalize": partial(F.normalize, dim=1),
        "sort": lambda t: t.sort(1).values,
    }
    return ways[how](x)


@stateless("centred", always(how=st.sampled_from(("mean", "max", "one", "sum"))), free=False)
def centred(x: Tensor, how: str) -> Tensor:
    ways = {
        "mean": lambda t: t.mean(1, keepdim=True),
        "sum": lambda t: t.sum(1, keepdim=True) / 16,
        "max": lambda t: t.amax(1, keepdim=True),
        "one": lambda t: t[:, 1:2],
    }
    return x - ways[how](x)


@stateless("gram", when(lambda s: s[0] <= 16))
def gram(x: Tensor) -> Tensor:
    """Every channel weighs all others (cross-covariance attention)."""
    flat = x.flatten(2)
    return ((flat @ flat.transpose(1, 2) / flat.shape[2]).softmax(-1) @ flat).view_as(x)


@stateless("by_width", always(), free=False)
def by_width(x: Tensor) -> Tensor:
    """The number of channels is itself an operand."""
    return x * x.shape[1] ** -0.5
