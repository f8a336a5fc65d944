"""Masked models compute what cut models compute, where channels act on each other too."""

from __future__ import annotations

import pytest
import torch
from nets import Between, image, randomised
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.engine.keep import Keep
from autoprune.engine.operations import operation_name
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace


@pytest.mark.parametrize(
    "between",
    [
        lambda y: torch.softmax(y, 1),
        lambda y: y / y.norm(dim=1, keepdim=True),
        lambda y: y - y.mean(1, keepdim=True),
        lambda y: y * y.amax(1, keepdim=True),
        lambda y: F.group_norm(y, 1),
        lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (y.shape[1],)).permute(0, 3, 1, 2),
        F.instance_norm,
        lambda y: y / (1 + y.std((1, 2, 3), keepdim=True)),
    ],
)
def test_what_mixes_channels_sees_only_those_that_stay(between) -> None:
    net = randomised(Between(between))
    graph = trace(net, image())
    keep = Keep.of({"a": [0, 3, 4]})

    assert graph.by_id["a"].size == 7
    with torch.no_grad():
        torch.testing.assert_close(
            mask(net, graph, keep)(image()), prune(net, graph, keep, fold=False)(image()), rtol=1e-4, atol=1e-5
        )


class Attends(nn.Module):
    """Attention alone, as its module computes it in one kernel where it may."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Tokens(nn.Module):
    """Patches of an image as tokens, something between these, and a linear layer on their mean."""

    def __init__(self, between: nn.Module, width: int) -> None:
        super().__init__()
        self.patches, self.between, self.head = nn.Conv2d(3, width, 3), between, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Names(TorchDispatchMode):
    """The operations that ran within it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(operation_name(func))
        return func(*args, **(kwargs or {}))


FAST_PATHS = {
    "_transformer_encoder_layer_fwd": lambda: nn.TransformerEncoderLayer(20, 4, 22, batch_first=True),
    "_native_multi_head_attention": lambda: Attends(20, 4),
}


@pytest.mark.filterwarnings("ignore:.*nested tensor")
@pytest.mark.parametrize("fused", FAST_PATHS)
def test_a_masked_model_is_right_where_the_dense_one_takes_the_fast_path_of_attention(fused: str) -> None:
    net = randomised(Tokens(FAST_PATHS[fused](), 20)).eval()
    graph = trace(net, image())
    # 4 heads of 5 channels, of which 3 stay in every head.
    keep = Keep.of({group.id: [0, 2, 3] for group in graph.prunable})
    small = prune(net, graph, keep, fold=False)
    with torch.no_grad(), Names() as dense:
        net(image())
    with torch.no_grad(), Names() as cut:
        small(image())

    assert "patches" in graph.by_id
    assert fused in dense.seen & cut.seen
    with torch.no_grad():
        torch.testing.assert_close(mask(net, graph, keep)(image()), small(image()), rtol=1e-4, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


class PositiveLinear(nn.Linear):
    """Its weight is computed; without a bias the product is `mm` or `bmm`, as the input lies in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.softplus(self.weight))


class PositiveTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 7, 1), PositiveLinear(7, 11), PositiveLinear(11, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.stem(x).flatten(2).transpose(1, 2)))


@pytest.mark.parametrize("images", [1, 3])
def test_a_computed_weight_is_found_again_whatever_the_batch_size(images: int) -> None:
    net, x = randomised(PositiveTokens()), torch.rand(images, 3, 4, 4)
    graph = trace(net, x[:1])
    keep = Keep.of({"stem": [0, 2, 6], "first": [1, 3, 4, 8]})
    assert [(weight.module, weight.index) for weight in graph.computed_weights] == [("first", 0), ("second", 0)]
    with torch.no_grad():
        torch.testing.assert_close(prune(net, graph, keep, fold=False)(x), mask(net, graph, keep)(x))


class ReadsThenWeighs(nn.Module):
    """An LSTM multiplies step by step where it is traced, and all steps at once on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.stem, self.positive = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 7), PositiveLinear(7, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.positive(self.stem(self.reader(x)[0])).sum(1)


def test_a_computed_weight_is_found_again_behind_a_layer_that_multiplies_otherwise_than_in_the_trace() -> None:
    net, x = randomised(ReadsThenWeighs()).double(), torch.rand(2, 4, 3).double()  # in float32 a kernel does it all
    graph = trace(net, x)
    keep = Keep.of({"stem": [0, 2, 6]})
    with torch.no_grad():
        torch.testing.assert_close(prune(net, graph, keep, fold=False)(x), mask(net, graph, keep)(x))
