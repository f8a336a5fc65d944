"""Kinds of nodes without weights: what couples channels beside layers, and what holds them fast."""

from __future__ import annotations

from functools import partial, reduce

import random_layers  # noqa: F401 - draws count kinds in the order of registration: those come first
import torch
from hypothesis import strategies as st
from random_nodes import MOST_PIXELS, WIDEST, Options, Shape, always, by_divisor, divisors, one, stateless, when
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = ("relu", "silu", "gelu", "hardswish", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "relu6")


@stateless("activation", always(name=st.sampled_from(ACTIVATIONS)))
def activation(x: Tensor, name: str) -> Tensor:
    return getattr(F, name)(x)


@stateless("pool", when(lambda s: min(s[1:]) >= 3, mode=st.sampled_from(("max", "avg", "smooth", "adaptive", "max3"))))
def pool(x: Tensor, mode: str) -> Tensor:
    pools = {
        "max": partial(F.max_pool2d, kernel_size=2),
        "avg": partial(F.avg_pool2d, kernel_size=2),
        "smooth": partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1),
        "max3": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
        "adaptive": partial(F.adaptive_avg_pool2d, output_size=(3, 2)),
    }
    return pools[mode](x)


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


# ---- with something that may hold channels fast ----------------------------------------------------------------------


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
    "across", always(operation=st.sampled_from(("softmax", "flip", "roll", "cumsum", "normalize", "sort"))), free=False
)
def across(x: Tensor, operation: str) -> Tensor:
    operations = {
        "softmax": partial(torch.softmax, dim=1),
        "flip": partial(torch.flip, dims=(1,)),
        "roll": partial(torch.roll, shifts=1, dims=1),
        "cumsum": partial(torch.cumsum, dim=1),
        "normalize": partial(F.normalize, dim=1),
        "sort": lambda t: t.sort(1).values,
    }
    return operations[operation](x)


@stateless("centred", always(operation=st.sampled_from(("mean", "max", "one", "sum"))), free=False)
def centred(x: Tensor, operation: str) -> Tensor:
    operations = {
        "mean": lambda t: t.mean(1, keepdim=True),
        "sum": lambda t: t.sum(1, keepdim=True) / 16,
        "max": lambda t: t.amax(1, keepdim=True),
        "one": lambda t: t[:, 1:2],
    }
    return x - operations[operation](x)


@stateless("gram", when(lambda s: s[0] <= 16))
def gram(x: Tensor) -> Tensor:
    """Every channel weighs all others (cross-covariance attention)."""
    flat = x.flatten(2)
    return ((flat @ flat.transpose(1, 2) / flat.shape[2]).softmax(-1) @ flat).view_as(x)


@stateless("by_width", always(), free=False)
def by_width(x: Tensor) -> Tensor:
    """The number of channels is itself an operand."""
    return x * x.shape[1] ** -0.5
