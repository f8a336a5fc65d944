"""New tensors fit the channels that they meet, as first states of recurrent layers do; what is written comes out."""

from __future__ import annotations

import pytest
import torch
from nets import Between, image, randomised
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


def beside(y: Tensor) -> Tensor:
    """Two halves written side by side."""
    out = y.new_empty(y.shape[0], 2 * y.shape[1], *y.shape[2:])
    out[:, : y.shape[1]] = y
    out[:, y.shape[1] :] = y.tanh()
    return out[:, : y.shape[1]] * out[:, y.shape[1] :]


def framed(y: Tensor) -> Tensor:
    """Into the middle of zeros, in place."""
    out = torch.zeros(*y.shape[:2], y.shape[2] + 2, y.shape[3] + 2, device=y.device)
    out[:, :, 1:-1, 1:-1].add_(y)
    return out


def by_rows(y: Tensor) -> Tensor:
    """Row by row, through a view that was there before anything was written."""
    out = torch.zeros(y.shape, device=y.device)
    first = out[:, :, 0]
    for i, row in enumerate(out.unbind(2)):
        row.copy_(y[:, :, i])
    return out + first.unsqueeze(2)


def dropped(y: Tensor) -> Tensor:
    """Noise of the shape of the channels, all of which stay here."""
    noise = y.new_empty(*y.shape[:2], 1, 1).bernoulli_(1.0).div_(0.8)
    return y * noise


@pytest.mark.parametrize(
    "between",
    [
        beside,
        framed,
        by_rows,
        dropped,
        lambda y: torch.cat([y, y.new_zeros(y.shape)], 1)[:, : y.shape[1]],
        lambda y: F.pad(y, (1, 2, 2, 1), mode="circular"),
        lambda y: y * torch.full((y.shape[1], 1, 1), 2.0, device=y.device).sqrt(),
    ],
)
def test_what_meets_or_is_written_into_new_tensors_is_pruned(between) -> None:
    net = randomised(Between(between))
    graph = trace(net, image())
    keep = Keep.of({"a": [0, 2, 5]})

    with torch.no_grad():
        masked, cut = (model(image()) for model in (mask(net, graph, keep), prune(net, graph, keep, fold=False)))

    assert [group.id for group in graph.prunable] == ["a"]
    torch.testing.assert_close(cut, masked)


def test_rows_that_are_overwritten_hold_no_channels() -> None:
    def without_edge(y: Tensor) -> Tensor:
        y = y.clone()
        y[:, :, 0] = 0
        return y

    assert trace(Between(without_edge), image()).by_id["a"].size == 7


# ---- states of recurrent layers --------------------------------------------------------------------------------------


class OverColumns(nn.Module):
    """A convolution of 13 filters, then a recurrent layer over the columns."""

    def __init__(self, layer: nn.RNNBase, outputs: int) -> None:
        super().__init__()
        self.a, self.layer, self.head = nn.Conv2d(3, 13, 3), layer, nn.Linear(outputs, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.a(x).mean(2).permute(0, 2, 1))[0])


class ByCell(nn.Module):
    """A cell step by step, from zeros whose length only the attribute `state` knows."""

    def __init__(self, cell: nn.RNNCellBase, state: int) -> None:
        super().__init__()
        self.a, self.cell, self.state, self.head = nn.Conv2d(3, 13, 3), cell, state, nn.Linear(state, 5)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.a(x).mean(2).unbind(2)
        h: Tensor = x.new_zeros(len(x), self.state)
        c = torch.zeros_like(h)
        for column in columns:
            h, c = self.cell(column, (h, c)) if isinstance(self.cell, nn.LSTMCell) else (self.cell(column, h), c)
        return self.head(h)


class ConvGru(nn.Module):
    """Maps as states: the first one is made by the shape of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.hid = 7
        self.gates, self.update = nn.Conv2d(3 + 7, 14, 3, padding=1), nn.Conv2d(3 + 7, 7, 3, padding=1)
        self.head = nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), self.hid, x.size(2), x.size(3)).to(x)
        for frame in (x, x.flip(3)):
            z, r = torch.sigmoid(self.gates(torch.cat((frame, h), 1))).chunk(2, 1)
            h = (1 - z) * h + z * torch.tanh(self.update(torch.cat((frame, r * h), 1)))
        return self.head(h)


NETS = {
    "lstm": (lambda: OverColumns(nn.LSTM(13, 11, batch_first=True), 11), {"a": 13, "layer": 11}),
    "gru": (lambda: OverColumns(nn.GRU(13, 11, batch_first=True), 11), {"a": 13, "layer": 11}),
    "rnn": (lambda: OverColumns(nn.RNN(13, 11, batch_first=True), 11), {"a": 13, "layer": 11}),
    "projected": (
        lambda: OverColumns(nn.LSTM(13, 11, batch_first=True, proj_size=7), 7),
        {"a": 13, "layer": 11, "layer#2": 7},
    ),
    "two layers, both ways": (
        lambda: OverColumns(nn.LSTM(13, 11, 2, batch_first=True, bidirectional=True), 22),
        {"a": 13, "layer": 11},
    ),
    "lstm cell": (lambda: ByCell(nn.LSTMCell(13, 11), 11), {"a": 13, "cell": 11}),
    "gru cell": (lambda: ByCell(nn.GRUCell(13, 11), 11), {"a": 13, "cell": 11}),
    "convolutional": (ConvGru, {"gates": 7}),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", NETS)
def test_inputs_and_hidden_units_are_pruned_and_masked_is_cut(name: str) -> None:
    make, sizes = NETS[name]
    net = make().eval()
    graph = trace(net, image())
    keep = Keep.of({group.id: range(0, group.size, 2) for group in graph.prunable})
    cut = prune(net, graph, keep, fold=False)

    assert {group.id: group.size for group in graph.prunable} == sizes
    with torch.no_grad():
        torch.testing.assert_close(cut(image()), mask(net, graph, keep)(image()))


def test_a_cut_recurrent_layer_says_its_sizes() -> None:
    net = NETS["projected"][0]().eval()
    graph = trace(net, image())

    layer = prune(net, graph, Keep.of({"a": range(9), "layer": range(5), "layer#2": range(3)})).layer

    assert (layer.input_size, layer.hidden_size, layer.proj_size) == (9, 5, 3)
