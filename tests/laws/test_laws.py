"""Laws of every network and every Keep: masked == cut, cost == FlopCounterMode, round trips, monotone cost."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NETS, image, randomised
from torch.utils.flop_counter import FlopCounterMode

from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask, silence
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace

TRACED = {name: (net := randomised(build()), trace(net, image())) for name, build in NETS.items()}


@st.composite
def keeps(draw: st.DrawFn, graph: ChannelGraph) -> Keep:
    """Any non-empty part of any groups."""
    kept = {}
    for group in graph.prunable:
        if draw(st.booleans()):
            kept[group.id] = draw(st.sets(st.integers(0, group.size - 1), min_size=1))
    return Keep.of(kept)


@st.composite
def cases(draw: st.DrawFn, names: tuple[str, ...] = tuple(NETS)) -> tuple[torch.nn.Module, ChannelGraph, Keep]:
    net, graph = TRACED[draw(st.sampled_from(names))]
    return net, graph, draw(keeps(graph))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / a.abs().max().clamp_min(1e-9)).item()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_masked_model_computes_what_the_cut_model_computes(case) -> None:
    net, graph, keep = case
    with torch.no_grad():
        masked, cut = mask(net, graph, keep)(image()), prune(net, graph, keep, fold=False)(image())

    assert relative(masked, cut) < 1e-4


@settings(max_examples=60, deadline=None)
@given(cases(tuple(NETS.keys() - {"Shared"})))
def test_folding_makes_up_for_what_silenced_filters_still_emit(case) -> None:
    net, graph, keep = case  # no network here pads, and each layer reads one constant: folding is exact
    with torch.no_grad():
        silent, cut = silence(net, graph, keep)(image()), prune(net, graph, keep)(image())

    assert relative(silent, cut) < 1e-4


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_cost_is_what_torch_counts_on_the_rebuilt_model(case) -> None:
    net, graph, keep = case
    cut = prune(net, graph, keep, fold=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        cut(image())

    assert counter.get_total_flops() == cost(graph, keep).flops
    assert sum(p.numel() for p in cut.parameters()) == cost(graph, keep).params


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms())
def test_removing_one_more_unit_never_costs_more(case, random) -> None:
    _, graph, keep = case
    wide = [(group, positions) for group, positions in keep.kept if len(positions) > 1]
    if not wide:
        return
    group, positions = random.choice(wide)
    before, after = cost(graph, keep), cost(graph, Keep.of({**dict(keep.kept), group: positions[1:]}))

    assert after.flops <= before.flops
    assert after.params < before.params
    assert after.activations <= before.activations


@settings(max_examples=60, deadline=None)
@given(cases())
def test_a_keep_survives_json(case) -> None:
    _, graph, keep = case
    again = Keep.of(json.loads(json.dumps(keep.to_dict())))

    assert keep == again
    assert hash(keep) == hash(again)
    assert keep.widths(graph) == again.widths(graph)


@pytest.mark.parametrize("name", sorted(NETS))
def test_pruning_twice_is_pruning_once(name: str) -> None:
    net, graph = TRACED[name]
    first = Keep.of({group.id: range(1, group.size) for group in graph.prunable})
    once = prune(net, graph, first, fold=False)
    graph_of_once = trace(once, image())
    second = Keep.of({group.id: range(1, group.size) for group in graph_of_once.prunable})
    both = Keep.of({group.id: range(2, group.size) for group in graph.prunable})
    twice, direct = prune(once, graph_of_once, second, fold=False), prune(net, graph, both, fold=False)

    with torch.no_grad():
        assert relative(direct(image()), twice(image())) < 1e-5


@pytest.mark.parametrize("name", sorted(NETS))
def test_a_cut_model_trains_and_says_its_new_sizes(name: str) -> None:
    net, graph = TRACED[name]
    cut = prune(net, graph, Keep.of({group.id: range(1, group.size) for group in graph.prunable})).train()

    cut(image()).sum().backward()

    assert all(p.grad is not None and p.grad.shape == p.shape for p in cut.parameters())
    for module in cut.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert module.num_features == len(module.weight) == len(module.running_mean)
        elif isinstance(module, torch.nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape)
