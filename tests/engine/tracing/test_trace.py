"""What the graph says about small networks whose coupling can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from nets import Chain, Depthwise, Grouped, Residual, Shared, Shuffle, image, randomised
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
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


def test_an_unknown_grouping_mode_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown grouping mode 'offset' \(did you mean 'offsets'\?\)"):
        trace(Grouped(), image(), grouped="offset")


def test_channel_shuffle_keeps_both_halves_equal() -> None:
    # chunk ties offset i of both halves; the shuffle interleaves them and ties nothing more
    assert {"stem.0": 7, "after.0": 11} == sizes(trace(Shuffle(7), image()))


def test_a_shared_layer_ties_its_inputs_to_its_outputs() -> None:
    assert {"stem.0": 11, "up": 7} == sizes(trace(Shared(11), image()))


class Decoder(nn.Module):
    """A linear layer whose outputs are viewed into maps."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 7
        self.spread, self.norm = nn.Linear(11, 7 * 9), nn.BatchNorm2d(7)
        self.up, self.out = nn.ConvTranspose2d(7, 13, 2, 2), nn.Conv2d(13, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.spread(x).view(-1, self.channels, 3, 3))
        return self.out(torch.relu(self.up(nn.functional.interpolate(x, scale_factor=2))))


def test_maps_made_by_a_linear_layer_lose_whole_channels() -> None:
    net, x = randomised(Decoder()), torch.randn(2, 11)
    graph = trace(net, x)
    keep = Keep.of({"spread": [0, 4, 5], "up": [1, 2, 12]})
    cut = prune(net, graph, keep, fold=False)

    assert {group.id: group.size for group in graph.prunable} == {"spread": 7, "up": 13}
    assert cut.spread.weight.shape == (27, 11)
    with torch.no_grad():
        torch.testing.assert_close(cut(x), mask(net, graph, keep)(x))


def test_parts_that_a_cut_makes_equal_stay_apart() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large, self.a = 7, 14, nn.Conv2d(3, 21, 1)
            self.b, self.c = nn.Conv2d(7, 5, 1), nn.Conv2d(14, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            small, large = self.a(x).split([self.small, self.large], 1)
            return self.b(small) + self.c(large)

    assert {group.id: group.size for group in trace(Parts(), image()).prunable} == {"a": 7, "a#2": 14}


class WritesItsKernel(nn.Module):
    """Branches become one kernel while it runs, as re-parametrised networks have it."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.a, self.branch, self.merged = (nn.Conv2d(inputs, 7, 1) for inputs in (3, 7, 7))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        weight = self.branch.weight + 1
        if self.in_place:
            self.merged.weight.copy_(weight)
        else:
            self.merged.weight.data = weight
        return self.merged(self.a(x))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_forward_pass_that_writes_its_own_weights_is_refused(in_place: bool) -> None:
    net = WritesItsKernel(in_place=in_place)
    before = net.merged.weight.clone()

    with pytest.raises(ModelError, match=r"writes into its own weight 'merged\.weight'"):
        trace(net, image())
    assert torch.equal(net.merged.weight, before)
