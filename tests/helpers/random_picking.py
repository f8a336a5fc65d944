"""Kinds of nodes that pick entries by numbers found on the way, or by slices whose bounds are computed."""

from __future__ import annotations

from functools import partial

import random_functions  # noqa: F401 - draws count kinds in the order of registration: those come first
import torch
from hypothesis import strategies as st
from random_nodes import Shape, always, kind, stateless, when
from torch import Tensor, nn
from torch.nn import functional as F


@kind("unpool", when(lambda s: min(s[1:]) >= 2, between=st.booleans()))
class Unpool(nn.Module):
    """Entries go back to where the largest ones were found, `between` a convolution or not (SegNet)."""

    def __init__(self, shape: Shape, between: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], shape[0], 3, padding=1) if between else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        largest, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(self.conv(largest), places, 2, output_size=x.shape[2:])


@stateless("largest_pixels", when(lambda s: s[1] * s[2] >= 6, ranked=st.sampled_from(("topk", "sort", "kthvalue"))))
def largest_pixels(x: Tensor, ranked: str) -> Tensor:
    """Every channel's pixels by size: the six largest, or the third beside the smallest six."""
    pixels = x.flatten(2)
    if ranked == "kthvalue":
        return (pixels[..., :6] - pixels.kthvalue(3, 2, keepdim=True).values).unflatten(2, (2, 3))
    chosen = pixels.topk(6, 2).values if ranked == "topk" else pixels.sort(2).values[..., -6:]
    return chosen.unflatten(2, (2, 3))


@kind("pixels_by_another", when(lambda s: s[1] * s[2] >= 4, found=st.sampled_from(("topk", "argsort", "argmax"))))
class PixelsByAnother(nn.Module):
    """A convolution's pixels, picked channel by channel where another value is large."""

    def __init__(self, shape: Shape, found: str) -> None:
        super().__init__()
        self.conv, self.found = nn.Conv2d(shape[0], shape[0], 1), found

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        ways = {
            "topk": lambda: pixels.topk(4, 2).indices,
            "argsort": lambda: pixels.argsort(2)[..., :4],
            "argmax": lambda: pixels.argmax(2, keepdim=True).repeat(1, 1, 4),
        }
        return self.conv(x).flatten(2).gather(2, ways[self.found]()).unflatten(2, (2, 2))


@kind("ranked_tokens", when(lambda s: s[1] * s[2] >= 4))
class RankedTokens(nn.Module):
    """The four pixels of the highest score, all channels of each (proposals of detectors, pruned tokens)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.score = nn.Linear(shape[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        scores, places = self.score(tokens).topk(4, 1)
        chosen = tokens.gather(1, places.expand(-1, -1, tokens.shape[2])) * torch.sigmoid(scores)
        return chosen.transpose(1, 2).unflatten(2, (2, 2))


@kind("scattered", when(lambda s: s[1] * s[2] >= 4), free=False)
class Scattered(nn.Module):
    """Pixels are added up in four bins, which one layer's scores choose for all channels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.score = nn.Conv2d(shape[0], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores, bins = self.score(x).max(1, keepdim=True)
        pixels = (x * torch.sigmoid(scores)).flatten(2)
        bins = bins.flatten(2).expand(-1, x.shape[1], -1)
        return x.new_zeros(*x.shape[:2], 4).scatter_add(2, bins, pixels).unflatten(2, (2, 2))


@stateless("channel_ranks", when(lambda s: s[0] > 2, by=st.sampled_from(("argmax", "topk", "sorted"))), free=False)
def channel_ranks(x: Tensor, by: str) -> Tensor:
    """Which channel is largest: a number that means nothing once channels are gone."""
    ways = {
        "argmax": lambda: x * (x.argmax(1, keepdim=True) == 1),
        "topk": lambda: x.gather(1, x.mean((2, 3), keepdim=True).topk(3, 1).indices.expand(-1, -1, *x.shape[2:])),
        "sorted": lambda: torch.take_along_dim(x, x.argsort(1), 1),
    }
    return ways[by]()


@stateless("place_of_largest", always())
def place_of_largest(x: Tensor) -> Tensor:
    """Every channel weighed by where its largest pixel is (soft-argmax's hard cousin)."""
    places = x.flatten(2).max(2).indices
    return x * (1 + places[..., None, None] / (x.shape[2] * x.shape[3]))


# ---- computed slices -------------------------------------------------------------------------------------------------


@stateless("shift", when(lambda s: s[0] > 4 and min(s[1:]) > 1, parts=st.sampled_from((3, 4, 8))), free=False)
def shift(x: Tensor, parts: int) -> Tensor:
    """The first part of the channels moves one pixel, the second the other way, the others stay (TSM)."""
    fold = max(1, x.shape[1] // parts)
    out = torch.zeros_like(x)
    out[:, :fold, 1:] = x[:, :fold, :-1]
    out[:, fold : 2 * fold, :-1] = x[:, fold : 2 * fold, 1:]
    out[:, 2 * fold :] = x[:, 2 * fold :]
    return out


@stateless("share", when(lambda s: s[0] > 4, share=st.sampled_from((0.3, 0.5, 0.75)), last=st.booleans()), free=False)
def share(x: Tensor, share: float, last: bool) -> Tensor:
    """A computed share of the channels, the first or the last."""
    count = int(x.shape[1] * share)
    return x[:, -count:] if last else x.narrow(1, 0, count)


@kind("partial_conv", when(lambda s: s[0] > 4, written=st.booleans()), free=False)
class PartialConv(nn.Module):
    """A third of the channels is convolved, the others pass (FasterNet); `written` in place or concatenated."""

    def __init__(self, shape: Shape, written: bool) -> None:
        super().__init__()
        self.convolved, self.written = shape[0] // 3, written
        self.conv = nn.Conv2d(self.convolved, self.convolved, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.written:
            out = x.clone()
            out[:, : self.convolved] = self.conv(x[:, : self.convolved])
            return out
        first, others = x.split([self.convolved, x.shape[1] - self.convolved], 1)
        return torch.cat([self.conv(first), others], 1)


@stateless("halves_differ", when(lambda s: s[0] > 3), free=False)
def halves_differ(x: Tensor) -> Tensor:
    """Two activations, each on one half of the channels (IBN, Gaussian mixtures)."""
    middle = x.shape[1] // 2
    return torch.cat([torch.tanh(x[:, :middle]), F.leaky_relu(x[:, middle:])], 1)


@stateless("swapped", when(lambda s: s[0] % 2 == 0), free=False)
def swapped(x: Tensor) -> Tensor:
    """The second half of the channels before the first."""
    return torch.cat([*map(partial(torch.mul, x.new_ones(())), x.chunk(2, 1)[::-1])], 1)
