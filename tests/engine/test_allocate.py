"""The target contract and the three strategies."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NETS, Chain, image
from torch import nn

from autoprune.allocate import TOLERANCE, allocate, smallest
from autoprune.cost import cost
from autoprune.errors import InputError, TargetError
from autoprune.graph import ChannelGraph
from autoprune.keep import Keep
from autoprune.recipe import Allocation, Target
from autoprune.trace import trace

CHAIN = trace(Chain(70, 110), image())
GRAPHS = {name: trace(net(), image()) for name, net in NETS.items()}
STRATEGIES = (
    Allocation(name="uniform"),
    Allocation(name="global", normalise="mean"),
    Allocation(name="global", normalise="none"),
    Allocation(name="ratios", ratios={"stage0": 0.3, "*": 1.0}),
)


def ascending(graph: ChannelGraph) -> dict[str, np.ndarray]:
    return {group.id: np.arange(group.size, dtype=float) for group in graph.prunable}


def ratios(graph: ChannelGraph, keep: Keep) -> dict[str, float]:
    return cost(graph, keep).ratios(cost(graph, Keep.all()))


def every_cut(graph: ChannelGraph, scores: dict[str, np.ndarray], how: Allocation) -> list[Keep]:
    """What this strategy gives for all targets on a fine grid, as far as it reaches them."""
    found = []
    for target in np.linspace(0.01, 1, 200):
        with contextlib.suppress(TargetError):
            found.append(allocate(graph, scores, Target(flops=float(target)), how))
    return found


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(GRAPHS)), st.sampled_from(STRATEGIES), st.floats(0.05, 1.0), st.integers(0, 2**32 - 1))
def test_a_target_is_met_within_one_percent_or_refused(name: str, how: Allocation, flops: float, seed: int) -> None:
    graph = GRAPHS[name]
    scores = {group.id: np.random.default_rng(seed).random(group.size) for group in graph.prunable}
    try:
        keep = allocate(graph, scores, Target(flops=flops), how)
    except TargetError:
        reachable = [ratios(graph, k)["flops"] for k in every_cut(graph, scores, how)]
        assert not any(flops - TOLERANCE <= ratio <= flops for ratio in reachable)
        return

    assert abs(ratios(graph, keep)["flops"] - flops) <= TOLERANCE + 1e-9 or keep == Keep.all()


@pytest.mark.parametrize("how", STRATEGIES, ids=lambda how: f"{how.name}-{how.normalise}")
@pytest.mark.parametrize("flops", [0.2, 0.5, 0.9])
def test_wide_networks_always_meet_their_target(how: Allocation, flops: float) -> None:
    assert abs(ratios(CHAIN, allocate(CHAIN, ascending(CHAIN), Target(flops=flops), how))["flops"] - flops) <= 0.01


@pytest.mark.parametrize("how", STRATEGIES, ids=lambda how: f"{how.name}-{how.normalise}")
def test_the_highest_scores_stay(how: Allocation) -> None:
    keep = allocate(CHAIN, ascending(CHAIN), Target(flops=0.5), how)

    for group, positions in keep.kept:
        size = CHAIN.by_id[group].size
        assert tuple(range(size - len(positions), size)) == positions


def test_uniform_prunes_the_same_share_everywhere() -> None:
    widths = allocate(CHAIN, ascending(CHAIN), Target(flops=0.5), Allocation(name="uniform")).widths(CHAIN)

    assert abs(widths["first.0"] / 70 - widths["second.0"] / 110) < 1 / 70


def test_ratios_prune_in_proportion() -> None:
    how = Allocation(name="ratios", ratios={"first.0": 0.25, "second.*": 0.5})
    widths = allocate(CHAIN, ascending(CHAIN), Target(flops=0.6), how).widths(CHAIN)

    assert 2 * (1 - widths["first.0"] / 70) == pytest.approx(1 - widths["second.0"] / 110, abs=2 / 70)


def test_groups_without_a_ratio_and_groups_without_scores_stay_whole() -> None:
    how = Allocation(name="ratios", ratios={"second.0": 1.0})
    without = {"second.0": np.arange(110.0)}

    assert allocate(CHAIN, ascending(CHAIN), Target(flops=0.6), how).widths(CHAIN)["first.0"] == 70
    assert allocate(CHAIN, without, Target(flops=0.6)).widths(CHAIN)["first.0"] == 70


def test_global_ranking_takes_the_weakest_wherever_they_are() -> None:
    scores = {"first.0": np.full(70, 5.0), "second.0": np.full(110, 1.0)}
    how = Allocation(name="global", normalise="none")
    widths = allocate(CHAIN, scores, Target(flops=0.8), how).widths(CHAIN)

    assert widths["first.0"] == 70
    assert widths["second.0"] < 110


def test_normalising_makes_the_scale_of_a_layer_irrelevant() -> None:
    base = ascending(CHAIN)
    scaled = {**base, "first.0": base["first.0"] * 1000}
    for normalise in ("mean", "max", "std"):
        how = Allocation(name="global", normalise=normalise)
        assert allocate(CHAIN, base, Target(flops=0.5), how) == allocate(CHAIN, scaled, Target(flops=0.5), how)


def test_a_combined_target_meets_both_limits_and_comes_close_to_one() -> None:
    target = Target(flops=0.5, params=0.3)
    found = ratios(CHAIN, allocate(CHAIN, ascending(CHAIN), target))

    assert found["flops"] <= 0.51
    assert found["params"] <= 0.31
    assert min(0.5 - found["flops"], 0.3 - found["params"]) <= 0.01


def test_no_target_keeps_everything() -> None:
    assert allocate(CHAIN, ascending(CHAIN), Target()) == Keep.all()
    assert allocate(CHAIN, ascending(CHAIN), Target(flops=1.0)) == Keep.all()


def test_an_unreachable_target_names_the_smallest_ratio_and_what_holds_it_up() -> None:
    reachable = smallest(CHAIN).ratios(cost(CHAIN, Keep.all()))["flops"]

    with pytest.raises(TargetError, match=rf"held up by .*frozen: head \(reaches.*allowed: flops >= {reachable:.4f}"):
        allocate(CHAIN, ascending(CHAIN), Target(flops=0.001))


def test_floors_hold() -> None:
    how = Allocation(name="uniform", max_ratio=0.5, min_channels=40)
    widths = allocate(CHAIN, ascending(CHAIN), Target(flops=0.35), how).widths(CHAIN)

    assert widths["first.0"] >= 40
    assert widths["second.0"] >= 55


def test_coarse_networks_refuse_what_no_width_comes_near() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 5, 1)), image())

    with pytest.raises(TargetError, match=r"no widths come within 1%.*allowed: a ratio near flops: 0.500"):
        allocate(graph, ascending(graph), Target(flops=0.7))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"first.1": np.ones(70)}, "unknown group 'first.1'"),
        ({"head": np.ones(5)}, "group 'head' is frozen"),
        ({"first.0": np.ones(69)}, r"scores of 'first.0': shape \(69,\); allowed: \(70,\)"),
        ({"first.0": np.full(70, np.nan)}, "scores that are not finite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        allocate(CHAIN, scores, Target(flops=0.5))


def test_a_ratio_key_that_matches_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"allocation.ratios: 'layer9.\*' matches no prunable group; allowed: stage0"):
        allocate(CHAIN, ascending(CHAIN), Target(flops=0.5), Allocation(name="ratios", ratios={"layer9.*": 1.0}))
