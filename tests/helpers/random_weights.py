"""Kinds of nodes whose weights are tied, or computed from parameters, buffers or values."""

from __future__ import annotations

import warnings

import random_picking  # noqa: F401 - draws count kinds in the order of registration: those come first
import torch
from hypothesis import strategies as st
from random_layers import OnLast
from random_nodes import WIDTHS, Shape, always, kind
from torch import Tensor, nn
from torch.nn import functional as F


@kind("tied_layers", always(width=st.sampled_from(WIDTHS), kernel=st.sampled_from((1, 3))))
class TiedLayers(nn.Module):
    """One parameter in two layers: a convolution and its transpose."""

    def __init__(self, shape: Shape, width: int, kernel: int) -> None:
        super().__init__()
        self.there = nn.Conv2d(shape[0], width, kernel, padding=kernel // 2)
        self.back = nn.ConvTranspose2d(width, shape[0], kernel, padding=kernel // 2)
        self.back.weight = self.there.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.back(F.relu(self.there(x)))


@kind("tied_linear", always(width=st.sampled_from(WIDTHS)))
class TiedLinear(nn.Module):
    """The transposed matrix leads back."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.linear, self.shift = nn.Linear(shape[0], width), nn.Parameter(torch.empty(shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.linear(x.permute(0, 2, 3, 1)))
        return F.linear(hidden, self.linear.weight.t(), self.shift).permute(0, 3, 1, 2)


@kind("tied_siblings", always(width=st.sampled_from(WIDTHS)))
class TiedSiblings(nn.Module):
    """Two convolutions share filters, but not biases; their outputs are concatenated."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(shape[0], width, 1), nn.Conv2d(shape[0], width, 1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.tanh(self.first(x)), self.second(F.relu(x))], 1)


@kind("tied_to_itself", always())
class TiedToItself(nn.Module):
    """The same square matrix over the channels, once plain and once transposed."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], shape[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(x)) + F.conv2d(x, self.conv.weight.transpose(0, 1))


# ---- computed weights ------------------------------------------------------------------------------------------------


@kind("normed_weights", always(width=st.sampled_from(WIDTHS), kernel=st.sampled_from((1, 3)), spectral=st.booleans()))
def normed_weights(shape: Shape, width: int, kernel: int, spectral: bool) -> nn.Module:
    """Parametrised weights: divided by the norm of a filter or of the matrix."""
    parametrizations = nn.utils.parametrizations
    normed = parametrizations.spectral_norm if spectral else parametrizations.weight_norm
    return normed(nn.Conv2d(shape[0], width, kernel, padding=kernel // 2))


@kind("normed_linear", always(width=st.sampled_from(WIDTHS), spectral=st.booleans()))
def normed_linear(shape: Shape, width: int, spectral: bool) -> nn.Module:
    """The same of a linear layer."""
    parametrizations = nn.utils.parametrizations
    normed = parametrizations.spectral_norm if spectral else parametrizations.weight_norm
    return OnLast(normed(nn.Linear(shape[0], width)))


@kind("hooked_weights", always(width=st.sampled_from(WIDTHS), transposed=st.booleans()))
def hooked_weights(shape: Shape, width: int, transposed: bool) -> nn.Module:
    """Weight norm by a hook, as the models of its time have it."""
    conv = nn.ConvTranspose2d if transposed else nn.Conv2d
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch recommends the parametrisation
        return nn.utils.weight_norm(conv(shape[0], width, 3, padding=1))


@kind("masked_weights", always(width=st.sampled_from(WIDTHS)))
class MaskedWeights(nn.Module):
    """Filters of which a buffer leaves one half (causal convolutions)."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], width, 3, padding=1)
        self.register_buffer("mask", torch.ones_like(self.conv.weight).tril())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight * self.mask, self.conv.bias, padding=1)


@kind("equalised", always(width=st.sampled_from(WIDTHS)), free=False)
class Equalised(nn.Module):
    """Weights times a gain, and demodulated by style (StyleGAN's convolution without a fixed gain)."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.style, self.conv = nn.Linear(shape[0], shape[0]), nn.Conv2d(shape[0], width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight * self.style(x.mean((0, 2, 3)))[None, :, None, None]
        return F.conv2d(x, weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-2).rsqrt())


@kind("own_filters", always())
class OwnFilters(nn.Module):
    """Every image makes its own 1x1 filter for each channel and one that mixes all (dynamic convolution)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.make = nn.Linear(shape[0], shape[0])

    def forward(self, x: Tensor) -> Tensor:
        filters = self.make(x.mean((2, 3)))
        n, c, h, w = x.shape
        return F.conv2d(x.reshape(1, n * c, h, w), filters.reshape(n * c, 1, 1, 1), groups=n * c).view(n, c, h, w)
