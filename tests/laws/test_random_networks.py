"""Laws of networks drawn at random and random keeps: what the engine says of a network is so once it is cut."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st
from random_nets import FOLDING, FREE, KINDS, Spec, build, folds, is_free, keeps, pictures, specs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask, silence
from autoprune.engine.surgery.plain_operations import plain_operations
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace

pytestmark = pytest.mark.timeout(900)  # a failure shrinks for minutes before it is told
OUTPUT = "reaches the model's output"
# Drawing means building networks, which hypothesis finds slow; explaining a failure runs it some hundred times more.
QUICK = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
LONG = settings(QUICK, max_examples=200)  # `count_failures.py` counts in thousands
#: Shortcuts that are filled up with zeros.
PADDED = {"widened", "padded"}
#: Heads are linked to streams where sizes say so; in a cut model sizes may say so by coincidence, and freeze more.
LINKED = {"multihead_attention", "own_attention", "transformer"}


def forward(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), plain_operations():
        return net(images)


def differ(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / a.abs().max().clamp_min(1e-9)).item()


def check_masked_is_cut(net: nn.Module, graph: ChannelGraph, keep: Keep, cut: nn.Module, images: Tensor) -> None:
    assert differ(forward(mask(net, graph, keep), images), forward(cut, images)) < 1e-6


def check_cost(graph: ChannelGraph, keep: Keep, cut: nn.Module, images: Tensor) -> None:
    with FlopCounterMode(display=False) as counter:
        forward(cut, images)
    expected = cost(graph, keep)
    assert counter.get_total_flops() == expected.flops
    assert sum(p.numel() for p in cut.parameters()) == expected.params


def check_training(cut: nn.Module, images: Tensor) -> None:
    cut = copy.deepcopy(cut).train()
    cut(images).sum().backward()
    assert [name for name, p in cut.named_parameters() if p.grad is None or p.grad.shape != p.shape] == []


def sizes(graph: ChannelGraph, widths: dict[str, int]) -> Counter[tuple[str, int]]:
    """(first layer, units) of prunable groups: which of a layer's groups is named first depends on what was cut."""
    return Counter((group.id.split("#")[0], widths[group.id]) for group in graph.prunable)


def check_retrace(graph: ChannelGraph, keep: Keep, again: ChannelGraph, least: int = 1) -> None:
    """The cut model is traced as what was left of the dense one; dimensions of size 1 have nothing left to prune.

    So have those of size 2 that are padded or that einsum contracts (`least` is 2 then): only a lone channel, without a
    label, could be tried.

    Of groups that were frozen some may be prunable now: where a size 13 was written in the code for two things, and
    one of them has become 7, the other can be told apart.
    """
    if min(keep.widths(graph).values(), default=3) > least:
        assert sizes(graph, keep.widths(graph)) <= sizes(again, Keep.all().widths(again))


def check_folding(net: nn.Module, graph: ChannelGraph, keep: Keep, cut: nn.Module, images: Tensor) -> None:
    """Folding moves constants and cuts nothing else: weights keep their shapes, and there may be more biases."""
    folded = prune(net, graph, keep)
    shapes = {name: p.shape for name, p in folded.named_parameters()}
    assert {name: p.shape for name, p in cut.named_parameters()}.items() <= shapes.items()
    assert all(name.endswith("bias") for name in shapes.keys() - dict(cut.named_parameters()).keys())
    assert forward(folded, images).isfinite().all()


def check_all(spec: Spec, data: st.DataObject) -> ChannelGraph:
    net, images = build(spec), pictures(spec)
    graph = trace(net, images)
    # torch.einsum multiplies where a dimension has one entry left, and FlopCounterMode counts no multiplications
    least = 2 if any(node.kind == "einsum" for node in spec.nodes) else 1
    keep = data.draw(keeps(graph, least))
    cut = prune(net, graph, keep, fold=False)
    check_masked_is_cut(net, graph, keep, cut, images)
    check_cost(graph, keep, cut, images)
    check_training(cut, images)
    check_folding(net, graph, keep, cut, images)
    again = trace(cut, images)
    assert cost(again, Keep.all()) == cost(graph, keep)
    if LINKED.isdisjoint(node.kind for node in spec.nodes):
        check_retrace(graph, keep, again, least if PADDED.isdisjoint(node.kind for node in spec.nodes) else 2)
    second = data.draw(keeps(again))
    check_masked_is_cut(cut, again, second, prune(cut, again, second, fold=False), images)
    return graph


def report(graph: ChannelGraph) -> None:
    """For `--hypothesis-show-statistics`: how much of the networks drawn is frozen."""
    share = sum(group.frozen not in {None, OUTPUT} for group in graph.groups) / len(graph.groups)
    event(f"groups frozen before the output: {round(10 * share) * 10} %")


@QUICK
@given(specs(), st.data())
def test_every_law_holds_on_any_network(spec: Spec, data: st.DataObject) -> None:
    report(check_all(spec, data))


@pytest.mark.long
@pytest.mark.slow
@LONG
@given(specs(most=12), st.data())
def test_every_law_holds_on_two_hundred_larger_networks(spec: Spec, data: st.DataObject) -> None:
    report(check_all(spec, data))


@QUICK
@given(specs(FREE))
def test_nothing_but_the_logits_is_frozen_where_nothing_holds_channels(spec: Spec) -> None:
    assume(is_free(spec))

    frozen = {group.id: group.frozen for group in trace(build(spec), pictures(spec)).groups if group.frozen}

    assert frozen == {"head": OUTPUT}


@QUICK
@given(specs(FOLDING, most=6), st.data())
def test_folding_makes_up_for_what_silenced_filters_still_emit(spec: Spec, data: st.DataObject) -> None:
    assume(folds(spec))
    net, images = build(spec), pictures(spec)
    graph = trace(net, images)
    keep = data.draw(keeps(graph))

    assert differ(forward(silence(net, graph, keep), images), forward(prune(net, graph, keep), images)) < 1e-6


class AllAreDrawnError(Exception):
    """Nothing is left to wait for."""


def test_every_kind_of_node_is_drawn() -> None:
    """A kind that applies to no shape would test nothing."""
    missing = {*KINDS, "reuse"}

    @settings(QUICK, max_examples=1200, phases=[Phase.generate])
    @given(specs(most=12))
    def draw(spec: Spec) -> None:
        missing.difference_update(node.kind for node in spec.nodes)
        if not missing:
            raise AllAreDrawnError

    with contextlib.suppress(AllAreDrawnError):
        draw()

    assert missing == set()
