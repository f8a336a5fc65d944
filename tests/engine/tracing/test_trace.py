"""What the graph says about small networks whose coupling can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from nets import Chain, Depthwise, Grouped, Residual, Shared, Shuffle, image, randomised
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.labels.blocks import reshape, segments
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError, ModelError


def sizes(graph: ChannelGraph) -> dict[str, int]:
    return {group.id: group.size for group in graph.prunable}


def frozen(graph: ChannelGraph) -> dict[str, str]:
    return {group.id: group.frozen for group in graph.groups if group.frozen}


def test_a_chain_has_one_group_per_layer_and_its_logits_are_frozen() -> None:
    graph = trace(Chain(7, 11), image())

    assert {"first.0": 7, "second.0": 11} == sizes(graph)
    assert {"head": "reaches the model's output"} == frozen(graph)


def test_a_residual_stream_is_one_group_with_every_layer_that_adds_to_it() -> None:
    graph = trace(Residual(7, 11), image())
    stream = graph.by_id["stem.0"]

    assert {"stem.0": 7, "a1.0": 11, "b1.0": 11} == sizes(graph)
    assert {"stem.0", "stem.1", "a2", "b2", "a1.0", "b1.0", "head"} == set(stream.layers)


def test_a_depthwise_layer_belongs_to_the_channels_it_filters() -> None:
    graph = trace(Depthwise(13, 3), image())

    assert {"expand.0": 13, "reduce": 3, "project.0": 7} == sizes(graph)
    assert {"depthwise.0", "depthwise.1", "excite"} <= set(graph.by_id["expand.0"].layers)


def test_a_grouped_convolution_loses_the_same_offset_of_every_group() -> None:
    graph = trace(Grouped(groups=3, offset=5), image())

    assert {"before.0": 5, "grouped.0": 7, "after.0": 11} == sizes(graph)


def test_a_grouped_convolution_can_lose_whole_groups_instead() -> None:
    net = randomised(Grouped(groups=3, offset=5))
    graph = trace(net, image(), grouped="groups")
    cut = prune(net, graph, keep := Keep.of({"before.0": [0, 2]}), fold=False)

    assert {"before.0": 3, "after.0": 11} == sizes(graph)  # the three groups, inputs and outputs of each together
    assert (cut.grouped[0].groups, cut.grouped[0].in_channels, cut.grouped[0].out_channels) == (2, 10, 14)
    with torch.no_grad():
        torch.testing.assert_close(mask(net, graph, keep)(image()), cut(image()), rtol=1e-4, atol=1e-5)


def test_a_group_norm_can_lose_whole_groups_and_is_then_as_it_was_for_the_others() -> None:
    net = nn.Sequential(nn.Conv2d(3, 21, 1), nn.GroupNorm(7, 21), nn.Conv2d(21, 5, 1))
    graph = trace(net, image(), grouped="groups")
    cut = prune(net, graph, Keep.of({"0": [1, 2, 6]}), fold=False)

    assert {"0": 7} == sizes(graph)
    assert (cut[1].num_groups, cut[1].num_channels) == (3, 9)
    torch.testing.assert_close(net[:2](image())[:, [3, 4, 5, 6, 7, 8, 18, 19, 20]], cut[:2](image()))


def test_an_unknown_way_to_cut_groups_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown way 'offset' \(did you mean 'offsets'\?\)"):
        trace(Grouped(), image(), grouped="offset")


def test_channel_shuffle_keeps_both_halves_equal() -> None:
    # chunk ties offset i of both halves; the shuffle interleaves them and ties nothing more
    assert {"stem.0": 7, "after.0": 11} == sizes(trace(Shuffle(7), image()))


def test_a_shared_layer_ties_its_inputs_to_its_outputs() -> None:
    assert {"stem.0": 11, "up": 7} == sizes(trace(Shared(11), image()))


def test_stages_count_resolutions_from_the_highest() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, 1, 1), nn.Conv2d(5, 7, 3, 2, 1), nn.Conv2d(7, 11, 1), nn.Conv2d(11, 2, 1))
    graph = trace(net, image(8))

    assert {"0": 0, "1": 1, "2": 1} == {group.id: group.stage for group in graph.prunable}


class HardCodedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 7, 1), nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = x.view(x.shape[0], 6, x.shape[2], x.shape[3])
        return self.c(self.b(x)).mean((2, 3))


def test_the_probe_freezes_only_the_group_whose_size_is_written_in_the_code() -> None:
    graph = trace(HardCodedView(), image())

    assert {"b": 7} == sizes(graph)
    assert "the model's code fixes its size" in frozen(graph)["a"]


class AddedSlice(nn.Module):
    """Reads four of seven channels by number: the slice keeps its place when a channel before it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 7, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x)[:, 2:6] + self.b(x)).mean((2, 3))


def test_channels_picked_by_number_are_not_pruned_although_the_cut_model_would_run() -> None:
    graph = trace(AddedSlice(), image())

    assert {} == sizes(graph)
    assert any("fixes" in why for why in frozen(graph).values())


class Between(nn.Module):
    """Something between two convolutions."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 5, 1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(x))).mean((2, 3))


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (lambda y: y.flip(1), "flip over the channels"),
        (lambda y: y.cumsum(1), "cumsum over the channels"),
        (lambda y: y * y.max(1, keepdim=True).values, "max over the channels"),
        (lambda y: y * y.kthvalue(3, 1, keepdim=True).values, "no rule for operation 'kthvalue'"),
        (lambda y: y + torch.arange(7.0, device=y.device).view(7, 1, 1), "meets a tensor of fixed size at 'add'"),
        (lambda y: y + torch.ones(7, 1, 1, device=y.device), "the model's code fixes its size"),
        (lambda y: y[:, :3].sum(1, keepdim=True) * y, "fixes an index"),
    ],
)
def test_what_cannot_lose_channels_freezes_them_and_says_so(between, why: str) -> None:
    assert why in frozen(trace(Between(between), image()))["a"]


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

    assert {"a": 7} == sizes(graph)
    with torch.no_grad():
        torch.testing.assert_close(
            mask(net, graph, keep)(image()), prune(net, graph, keep, fold=False)(image()), rtol=1e-4, atol=1e-5
        )


def test_padding_by_a_fixed_number_of_channels_freezes_only_what_meets_it() -> None:
    class OptionA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 11, 1), nn.Conv2d(11, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.c(F.pad(x, (0, 0, 0, 0, 2, 2)) + self.b(x)).mean((2, 3))

    graph = trace(OptionA(), image())

    assert {"a": 7} == sizes(graph)
    assert "fixed size" in frozen(graph)["b"]


class Auxiliary(nn.Module):
    """A head that runs in train mode only, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7)
        self.idle, self.head = nn.Linear(7, 5), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.norm(self.stem(x)).mean((2, 3))
        return (self.head(x), self.idle(x)) if self.training else self.head(x)


def test_what_runs_in_train_mode_only_is_cut_with_the_rest() -> None:
    net = Auxiliary()
    graph = trace(net, image(batch=1))
    cut = prune(net.train(), graph, Keep.of({"stem": [0, 3]}))

    assert "idle" in graph.by_id["stem"].layers
    assert cut.idle.in_features == 2
    assert [(2, 5), (2, 5)] == [tuple(out.shape) for out in cut(image())]


class ScaledTwice(nn.Module):
    """Two layers whose outputs are scaled by a power of their own width; a slice makes the tracer try several cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, width, 1) for width in (3, 5, 3, 5, 7))
        self.head = nn.Linear(23, 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = [(y := layer(x)) * y.shape[1] ** -0.5 for layer in self.layers]
        return self.head(torch.cat(parts, 1)[:, :23].mean((2, 3)))


def test_every_number_that_follows_a_width_is_taken_back() -> None:
    net = randomised(ScaledTwice())
    graph = trace(net, image())

    assert {f"layers.{i}.{name}" for i in range(5) for name in ("weight", "bias")} == {s.tensor for s in graph.scales}
    for group in graph.prunable:
        keep = Keep.of({group.id: [0]})
        with torch.no_grad():
            torch.testing.assert_close(
                mask(net, graph, keep)(image()), prune(net, graph, keep, fold=False)(image()), rtol=1e-4, atol=1e-5
            )


def test_tracing_leaves_the_model_as_it_was() -> None:
    net = Residual().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    trace(net, image())

    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_forward_pass_that_fails_is_a_model_error_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"Chain: the forward pass fails: .*") as caught:
        trace(Chain(), torch.zeros(2, 4, 9, 9))

    assert "\n" not in str(caught.value)


def test_segments_match_runs_of_dimensions() -> None:
    assert [([0], [0]), ([1], [1, 2]), ([2, 3], [3])] == segments((2, 6, 4, 5), (2, 2, 3, 20))
    assert [([1], [0])] == segments((1, 7), (7, 1))
    assert segments((2, 3), (7,)) is None


def test_flattening_repeats_a_channel_label_for_every_pixel() -> None:
    moved, ties = reshape(((1,), np.array([4, 5])), (3, 2, 2, 2), (3, 8))

    assert moved is not None
    assert (1,) == moved[0]
    assert [4, 4, 4, 4, 5, 5, 5, 5] == moved[1].tolist()
    assert ties == []
