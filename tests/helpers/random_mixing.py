"""Kinds of nodes that are parts of known networks: recurrent layers, channel attention, maps, padded shortcuts."""

from __future__ import annotations

import random_weights  # noqa: F401 - draws count kinds in the order of registration: those come first
import torch
from hypothesis import strategies as st
from random_nodes import OFFSETS, WIDEST, Options, Shape, always, divisors, kind, one, stateless
from torch import Tensor, nn
from torch.nn import functional as F

COLUMNS = 3  # at most: torch unrolls recurrent layers, and a network is run some hundred times
RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@kind(
    "recurrent",
    always(layer=st.sampled_from(sorted(RECURRENT)), width=st.sampled_from(OFFSETS), both=st.booleans(),
           first=st.booleans(), layers=st.sampled_from((1, 2))),
)  # fmt: skip
class Recurrent(nn.Module):
    """A recurrent layer over the columns of the image (CRNN)."""

    def __init__(self, shape: Shape, layer: str, width: int, both: bool, first: bool, layers: int) -> None:
        super().__init__()
        self.layer = RECURRENT[layer](shape[0], width, layers, batch_first=first, bidirectional=both)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        columns = x.mean(2)[..., :COLUMNS].transpose(1, 2)  # (n, columns, channels)
        if self.first:
            return self.layer(columns)[0].transpose(1, 2)[:, :, None]
        return self.layer(columns.transpose(0, 1))[0].permute(1, 2, 0)[:, :, None]


@kind("recurrent_cell", always(kind=st.sampled_from(("lstm", "gru")), width=st.sampled_from(OFFSETS)))
class RecurrentCell(nn.Module):
    """torch's own cell, column by column."""

    def __init__(self, shape: Shape, kind: str, width: int) -> None:
        super().__init__()
        self.cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](shape[0], width)

    def forward(self, x: Tensor) -> Tensor:
        state, steps = None, []
        for column in x.mean(2)[..., :COLUMNS].unbind(2):
            state = self.cell(column, state)
            steps.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(steps, 2)[:, :, None]


@kind("conv_lstm", always(width=st.sampled_from(OFFSETS), zeros=st.sampled_from(("like", "new", "read"))))
class ConvLSTM(nn.Module):
    """Two steps of a convolutional LSTM whose state starts with zeros."""

    def __init__(self, shape: Shape, width: int, zeros: str) -> None:
        super().__init__()
        self.hidden_dim, self.zeros = width, zeros
        self.inputs = nn.Conv2d(shape[0], 4 * width, 3, padding=1)
        self.states = nn.Conv2d(width, 4 * width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.inputs(x)
        if self.zeros == "like":
            hidden = torch.zeros_like(gates.chunk(4, 1)[0])
        elif self.zeros == "new":
            hidden = x.new_zeros(len(x), self.hidden_dim, *x.shape[2:])
        else:
            hidden = torch.zeros(len(x), gates.shape[1] // 4, *x.shape[2:], dtype=x.dtype)
        cell = torch.zeros_like(hidden)
        for _ in range(2):
            i, f, o, g = (gates + self.states(hidden)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return hidden


# ---- channel attention -----------------------------------------------------------------------------------------------


@kind("max_gate", always())
class MaxGate(nn.Module):
    """A gate per pixel of the mean and of `max`'s values, whose places nobody reads (CBAM)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        largest, _ = torch.max(x, 1, keepdim=True)
        return x * torch.sigmoid(self.conv(torch.cat([largest, x.mean(1, keepdim=True)], 1)))


@kind("both_pools", always(squeezed=st.sampled_from((3, 5))))
class BothPools(nn.Module):
    """One small network on the means and on the largest of all channels (CBAM's other half)."""

    def __init__(self, shape: Shape, squeezed: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(shape[0], squeezed), nn.ReLU(), nn.Linear(squeezed, shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        gate = torch.sigmoid(sum(self.shared(values.flatten(1)) for values in pooled))
        return x * gate[:, :, None, None]


def head_options(shape: Shape) -> Options | None:
    fits = [1, *divisors(shape[0])]
    return one(heads=st.sampled_from(fits), by_conv=st.booleans()) if shape[0] <= WIDEST // 3 else None


@kind("transposed_attention", head_options)
class TransposedAttention(nn.Module):
    """Every channel of a head attends to all others of it (Restormer, XCiT)."""

    def __init__(self, shape: Shape, heads: int, by_conv: bool) -> None:
        super().__init__()
        channels, self.heads, self.by_conv = shape[0], heads, by_conv
        self.temperature = nn.Parameter(torch.empty(heads, 1, 1))
        if by_conv:
            mixing = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels)
            self.qkv = nn.Sequential(nn.Conv2d(channels, 3 * channels, 1), mixing)
        else:
            self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        if self.by_conv:
            q, k, v = (part.reshape(n, self.heads, -1, h * w) for part in self.qkv(x).chunk(3, 1))
        else:
            tokens = self.qkv(x.flatten(2).transpose(1, 2))
            q, k, v = tokens.reshape(n, h * w, 3, self.heads, -1).permute(2, 0, 3, 4, 1).unbind(0)
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.out((weights.softmax(-1) @ v).reshape(n, -1, h, w))


@kind("non_local", always(inner=st.sampled_from(OFFSETS)))
class NonLocal(nn.Module):
    """Every pixel weighs all others; the inner width is written down as an attribute."""

    def __init__(self, shape: Shape, inner: int) -> None:
        super().__init__()
        self.inner_channels = inner
        self.theta, self.phi, self.g = (nn.Conv2d(shape[0], inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, shape[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (f(x).view(len(x), self.inner_channels, -1) for f in (self.theta, self.phi, self.g))
        mixed = (theta.transpose(1, 2) @ phi).softmax(-1) @ g.transpose(1, 2)
        return x + self.out(mixed.transpose(1, 2).reshape(len(x), self.inner_channels, *x.shape[2:]))


@kind("borrowed_width", always(), free=False)
class BorrowedWidth(nn.Module):
    """A value viewed by the width of another that happens to be as wide."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], shape[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(len(x), x.shape[1], -1).unflatten(2, x.shape[2:])


# ---- maps and padded shortcuts ---------------------------------------------------------------------------------------


@kind("maps", always(width=st.sampled_from(OFFSETS), source=st.sampled_from(("mean", "flat")), by=st.sampled_from(
    ("read", "written", "unflatten"))))  # fmt: skip
class Maps(nn.Module):
    """A linear layer whose outputs are viewed as small images (decoders)."""

    def __init__(self, shape: Shape, width: int, source: str, by: str) -> None:
        super().__init__()
        inputs = shape[0] * (shape[1] * shape[2] if source == "flat" else 1)
        self.linear, self.width, self.source, self.by = nn.Linear(inputs, width * 6), width, source, by

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.flatten(1) if self.source == "flat" else x.mean((2, 3)))
        if self.by == "unflatten":
            return y.unflatten(1, (-1, 2, 3))
        return y.view(len(x), -1 if self.by == "read" else self.width, 2, 3)


def more_options(_shape: Shape) -> Options:
    return one(more=st.sampled_from((2, 5)), stride=st.sampled_from((1, 2)))


@kind("widened", more_options)
class Widened(nn.Module):
    """A residual branch that is wider than its stream: zeros are concatenated to this (PyramidNet)."""

    def __init__(self, shape: Shape, more: int, stride: int) -> None:
        super().__init__()
        self.norm, self.stride = nn.BatchNorm2d(shape[0]), stride
        self.conv = nn.Conv2d(shape[0], shape[0] + more, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.relu(self.norm(x)))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return y + self.filled_up(shortcut, y.shape[1] - x.shape[1])

    def filled_up(self, shortcut: Tensor, missing: int) -> Tensor:
        n, _, h, w = shortcut.shape
        return torch.cat([shortcut, shortcut.new_zeros(n, missing, h, w)], 1)


@kind("padded", more_options)
class Padded(Widened):
    """The same, but padded."""

    def filled_up(self, shortcut: Tensor, missing: int) -> Tensor:
        return F.pad(shortcut, (0, 0, 0, 0, 0, missing))


@stateless("paired", always(), partners="same", free=False)
def paired(*values: Tensor) -> Tensor:
    """Channels of two values beside each other, one from each in turn."""
    return torch.stack([values[0], values[-1]], 2).flatten(1, 2)


@kind(
    "added_where_as_wide",
    always(width=st.sampled_from((3, 5, 7, 9, 11)), by=st.sampled_from(("shape", "attribute"))),
    free=False,
)
class AddedWhereAsWide(nn.Module):
    """A shortcut where the layer puts out as many channels as it takes, which the code asks at every pass."""

    def __init__(self, shape: Shape, width: int, by: str) -> None:
        super().__init__()
        self.conv, self.by = nn.Conv2d(shape[0], width, 1), by

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.by == "shape":
            return y + x if x.shape[1] == y.shape[1] else y
        return y + x if self.conv.in_channels == self.conv.out_channels else y
