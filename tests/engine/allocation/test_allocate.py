"""The target contract and the strategies."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NETS, Chain, Grouped, Shuffle, image
from torch import Tensor, nn

from autoprune.engine.allocation.allocate import (
    TOLERANCE,
    allocate,
    check_target,
    check_widths,
    held_up_by,
    smallest,
)
from autoprune.engine.allocation.widths import channels_per_unit
from autoprune.engine.cost import cost, cost_of_counts
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, Target
from autoprune.study.space import Space

CHAIN = trace(Chain(70, 110), image())
GRAPHS = {name: trace(net(), image()) for name, net in NETS.items()}
STRATEGIES = (
    Allocation(name="uniform"),
    Allocation(name="global", normalise="mean"),
    Allocation(name="global", normalise="none"),
    Allocation(name="global", normalise="isomorphic"),
    Allocation(name="ratios", ratios={"stage0": 0.3, "*": 1.0}),
    Allocation(name="features", depth=1.0, flops=-0.5, stream=0.7),
)


def is_met(act: Callable[..., object], *args: object) -> bool:
    """Whether no target is refused."""
    try:
        act(*args)
    except TargetError:
        return False
    return True


def ascending(graph: ChannelGraph) -> dict[str, np.ndarray]:
    return {group.id: np.arange(group.size, dtype=float) for group in graph.prunable}


def ratios(graph: ChannelGraph, keep: Keep) -> dict[str, float]:
    return cost(graph, keep).ratios(cost(graph, Keep.all()))


def named(refusal: TargetError) -> list[float]:
    """The FLOPs ratios that a refusal says can be had."""
    return [float(number) for number in re.findall(r"flops(?: >=|:) ([\d.]+)", refusal.allowed)]


def channels(graph: ChannelGraph, keep: Keep) -> dict[str, int]:
    return {group: units * channels_per_unit(graph)[group] for group, units in keep.widths(graph).items()}


def every_cut(graph: ChannelGraph, scores: dict[str, np.ndarray], allocation: Allocation) -> list[Keep]:
    """What this strategy gives for all targets on a fine grid, as far as it reaches them."""
    found = []
    for target in np.linspace(0.01, 1, 200):
        with contextlib.suppress(TargetError):
            found.append(allocate(graph, scores, Target(flops=float(target)), allocation))
    return found


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(GRAPHS)), st.sampled_from(STRATEGIES), st.floats(0.05, 1.0), st.integers(0, 2**32 - 1))
def test_a_target_is_met_within_one_percent_or_refused(
    name: str, allocation: Allocation, flops: float, seed: int
) -> None:
    graph = GRAPHS[name]
    scores = {group.id: np.random.default_rng(seed).random(group.size) for group in graph.prunable}
    try:
        keep = allocate(graph, scores, Target(flops=flops), allocation)
    except TargetError:
        reachable = [ratios(graph, k)["flops"] for k in every_cut(graph, scores, allocation)]
        assert not any(flops - TOLERANCE <= ratio <= flops for ratio in reachable)
        return

    assert abs(ratios(graph, keep)["flops"] - flops) <= TOLERANCE + 1e-9 or keep == Keep.all()


@pytest.mark.parametrize("allocation", STRATEGIES, ids=lambda allocation: f"{allocation.name}-{allocation.normalise}")
@pytest.mark.parametrize("flops", [0.2, 0.5, 0.9])
def test_wide_networks_always_meet_their_target(allocation: Allocation, flops: float) -> None:
    assert (
        abs(ratios(CHAIN, allocate(CHAIN, ascending(CHAIN), Target(flops=flops), allocation))["flops"] - flops) <= 0.01
    )


@pytest.mark.parametrize("allocation", STRATEGIES, ids=lambda allocation: f"{allocation.name}-{allocation.normalise}")
def test_the_highest_scores_stay(allocation: Allocation) -> None:
    keep = allocate(CHAIN, ascending(CHAIN), Target(flops=0.5), allocation)

    for group, positions in keep.kept:
        size = CHAIN.by_id[group].size
        assert tuple(range(size - len(positions), size)) == positions


def test_uniform_prunes_the_same_share_everywhere() -> None:
    widths = allocate(CHAIN, ascending(CHAIN), Target(flops=0.5), Allocation(name="uniform")).widths(CHAIN)

    assert abs(widths["first.0"] / 70 - widths["second.0"] / 110) < 1 / 70


def test_ratios_prune_in_proportion() -> None:
    allocation = Allocation(name="ratios", ratios={"first.0": 0.25, "second.*": 0.5})
    widths = allocate(CHAIN, ascending(CHAIN), Target(flops=0.6), allocation).widths(CHAIN)

    assert 2 * (1 - widths["first.0"] / 70) == pytest.approx(1 - widths["second.0"] / 110, abs=2 / 70)


def test_groups_without_a_ratio_and_groups_without_scores_stay_whole() -> None:
    allocation = Allocation(name="ratios", ratios={"second.0": 1.0})
    without = {"second.0": np.arange(110.0)}

    assert allocate(CHAIN, ascending(CHAIN), Target(flops=0.6), allocation).widths(CHAIN)["first.0"] == 70
    assert allocate(CHAIN, without, Target(flops=0.6)).widths(CHAIN)["first.0"] == 70


def test_global_ranking_takes_the_weakest_wherever_they_are() -> None:
    scores = {"first.0": np.full(70, 5.0), "second.0": np.full(110, 1.0)}
    allocation = Allocation(name="global", normalise="none")
    widths = allocate(CHAIN, scores, Target(flops=0.8), allocation).widths(CHAIN)

    assert widths["first.0"] == 70
    assert widths["second.0"] < 110


def test_normalising_makes_the_scale_of_a_layer_irrelevant() -> None:
    base = ascending(CHAIN)
    scaled = {**base, "first.0": base["first.0"] * 1000}
    for normalise in ("mean", "max", "std"):
        allocation = Allocation(name="global", normalise=normalise)
        assert allocate(CHAIN, base, Target(flops=0.5), allocation) == allocate(
            CHAIN, scaled, Target(flops=0.5), allocation
        )


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

    with pytest.raises(TargetError, match=r"held up by second.0, first.0, head; frozen: head \(reaches") as refused:
        allocate(CHAIN, ascending(CHAIN), Target(flops=0.001))

    (least,) = named(refused.value)
    assert reachable <= least < reachable + 1e-4  # rounded up: what is named can be asked for
    assert ratios(CHAIN, allocate(CHAIN, ascending(CHAIN), Target(flops=least)))["flops"] == reachable


def test_whether_a_target_is_within_reach_is_known_without_scores() -> None:
    least = smallest(CHAIN).ratios(cost(CHAIN, Keep.all()))["flops"]
    check_target(CHAIN, Target())
    check_target(CHAIN, Target(flops=least))

    with pytest.raises(TargetError, match="held up by"):
        check_target(CHAIN, Target(flops=least - 1e-4))
    with pytest.raises(TargetError, match=r"flops >= 0\.2"):
        check_target(CHAIN, Target(flops=0.2), Allocation(max_ratio=0.5))


def test_what_holds_the_smallest_model_up() -> None:
    # one channel each, 7 and 5 places a side, 4 features a channel into 5 outputs: 49*27*4, 25*9*4*6 and 24*5 of them
    allocation = Allocation(max_ratio=0.95)
    first, second, head = 49 * 27 * 4, 25 * 9 * 4 * 6, 6 * 4 * 5
    total = first + second + head

    assert held_up_by(CHAIN, allocation, most=2) == {
        "second.0": pytest.approx(second / total),
        "first.0": pytest.approx(first / total),
    }


def test_groups_without_a_ratio_do_not_count_as_reachable() -> None:
    allocation = Allocation(name="ratios", ratios={"second.0": 1.0})
    reachable = smallest(CHAIN, allocation).ratios(cost(CHAIN, Keep.all()))["flops"]

    assert reachable == ratios(CHAIN, Keep.of({"second.0": range(6)}))["flops"]
    with pytest.raises(TargetError, match="cannot be reached") as refused:
        allocate(CHAIN, ascending(CHAIN), Target(flops=reachable / 2), allocation)
    assert reachable <= named(refused.value)[0] < reachable + 1e-4


def test_a_network_without_anything_to_prune_keeps_all_or_refuses() -> None:
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(27, 5)), image(3))

    assert allocate(graph, {}, Target()) == Keep.all()
    with pytest.raises(TargetError, match=r"cannot be reached.*frozen: 1 \(reaches.*flops >= 1.0000"):
        allocate(graph, {}, Target(flops=0.9))


def test_floors_hold() -> None:
    allocation = Allocation(name="uniform", max_ratio=0.5, min_channels=40)
    widths = allocate(CHAIN, ascending(CHAIN), Target(flops=0.35), allocation).widths(CHAIN)

    assert widths["first.0"] >= 40
    assert widths["second.0"] >= 55


def test_coarse_networks_refuse_what_no_width_comes_near() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 5, 1)), image())

    with pytest.raises(TargetError, match=r"found no widths within 1%.*allowed: a ratio near flops: 0.5 or flops: 1$"):
        allocate(graph, ascending(graph), Target(flops=0.7))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"first.1": np.ones(70)}, "unknown group 'first.1'"),
        ({"head": np.ones(6)}, r"scores of 'head': shape \(6,\); allowed: \(5,\)"),
        ({"first.0": np.ones(69)}, r"scores of 'first.0': shape \(69,\); allowed: \(70,\)"),
        ({"first.0": np.full(70, np.nan)}, "scores that are not finite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        allocate(CHAIN, scores, Target(flops=0.5))


def test_scores_of_frozen_groups_say_nothing() -> None:
    everything = {group.id: np.arange(group.size, dtype=float) for group in CHAIN.groups}
    prunable = {group.id: everything[group.id] for group in CHAIN.prunable}

    assert len(everything) > len(prunable)
    assert allocate(CHAIN, everything, Target(flops=0.5)) == allocate(CHAIN, prunable, Target(flops=0.5))
    assert allocate(CHAIN, {**prunable, "head": np.full(5, np.nan)}, Target(flops=0.5)).kept


def test_whether_some_widths_meet_a_target_is_known_without_scores() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 20, 1), nn.Conv2d(20, 28, 1), nn.Conv2d(28, 5, 1)), image())
    allocation, generator = Allocation(round_to=8), np.random.default_rng(5)
    scores = {group.id: generator.random(group.size) for group in graph.prunable}
    targets = [Target(flops=share / 50) for share in range(1, 51)]

    known = [is_met(check_widths, graph, target, allocation) for target in targets]

    assert known == [is_met(allocate, graph, scores, target, allocation) for target in targets]
    assert {True, False} == set(known)


def test_widths_are_those_of_the_groups_that_have_scores() -> None:
    check_widths(CHAIN, Target(flops=0.3))

    with pytest.raises(TargetError, match="cannot be reached"):
        check_widths(CHAIN, Target(flops=0.3), groups=())


def test_a_ratio_key_that_matches_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"allocation.ratios: 'layer9.\*' matches no prunable group; allowed: stage0"):
        allocate(CHAIN, ascending(CHAIN), Target(flops=0.5), Allocation(name="ratios", ratios={"layer9.*": 1.0}))


# ---- channels in multiples -------------------------------------------------------------------------------------------

ELEVEN = trace(nn.Sequential(nn.Conv2d(3, 11, 1), nn.Conv2d(11, 13, 1)), image())
"""One group of 11 channels, each of which costs the same: the FLOPs ratio is kept / 11."""


@pytest.mark.parametrize(("flops", "kept"), [(8 / 11, range(3, 11)), (4 / 11, range(7, 11)), (1.0, range(11))])
def test_a_group_goes_to_multiples_or_stays_whole(flops: float, kept: range) -> None:
    keep = allocate(ELEVEN, ascending(ELEVEN), Target(flops=flops), Allocation(round_to=4))

    assert keep.widths(ELEVEN)["0"] == len(kept)
    assert dict(keep.kept).get("0", tuple(range(11))) == tuple(kept)


def test_widths_between_two_multiples_are_refused_with_both() -> None:
    with pytest.raises(TargetError) as refused:
        allocate(ELEVEN, ascending(ELEVEN), Target(flops=0.5), Allocation(round_to=4))
    with pytest.raises(TargetError) as below:
        allocate(ELEVEN, ascending(ELEVEN), Target(flops=0.2), Allocation(round_to=4))

    assert named(refused.value) == [0.3637, 0.7273]  # 4/11 and 8/11, rounded up
    assert named(below.value) == [0.3637]


def test_floors_are_rounded_up_to_a_multiple() -> None:
    assert smallest(ELEVEN, Allocation(round_to=4, min_channels=5)).flops == smallest(ELEVEN).flops * 8
    assert smallest(ELEVEN, Allocation(round_to=4, max_ratio=0.5)).flops == smallest(ELEVEN).flops * 8
    assert smallest(ELEVEN, Allocation(round_to=4, min_channels=9)).flops == smallest(ELEVEN).flops * 11


def test_a_group_narrower_than_the_multiple_stays_whole() -> None:
    graph = trace(Chain(7, 110), image())
    half = ratios(graph, Keep.of({"second.0": range(48)}))["flops"]
    keep = allocate(graph, ascending(graph), Target(flops=half), Allocation(round_to=8))

    assert keep.widths(graph) == {"first.0": 7, "second.0": 48}


class Twins(nn.Module):
    """Two branches that cost the same: which of them is cut is up to the scores alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, 5, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


@pytest.mark.parametrize(("middle", "goes"), [(5.0, "other.0"), (1.0, "one.0")])
def test_a_block_goes_when_its_middle_unit_would(middle: float, goes: str) -> None:
    graph = trace(Twins(), image())
    scores = {"one.0": np.array([0, middle, 6, 9, 9, 9, 9.0]), "other.0": np.array([2, 2, 3, 4, 4, 4, 4.0])}
    allocation = Allocation(name="global", normalise="none", round_to=4)

    assert allocate(graph, scores, Target(flops=11 / 14), allocation).to_dict() == {goes: [3, 4, 5, 6]}


def test_channels_are_filters_of_a_layer() -> None:
    grouped, shuffle = trace(Grouped(), image()), trace(Shuffle(half=7), image())

    # the same offset goes in each of three groups; what is shuffled has two filters in the stem, one in the branch
    assert channels_per_unit(grouped) == {"before.0": 3, "grouped.0": 3, "after.0": 1, "head": 1}
    assert channels_per_unit(shuffle) == {"stem.0": 1, "after.0": 1, "head": 1}


def test_multiples_and_floors_of_a_grouped_convolution_count_its_filters() -> None:
    graph = trace(Grouped(groups=3, offset=8), image())  # 8 units of 3 filters, 7 of 3, 11 of 1
    lowest = {
        (round_to, least): {
            group.id: min(
                count
                for count in range(1, group.size + 1)
                if (count * channels_per_unit(graph)[group.id]) % round_to == 0 or count == group.size
                if count * channels_per_unit(graph)[group.id] >= least or count == group.size
            )
            for group in graph.prunable
        }
        for round_to in (1, 2, 6, 8)
        for least in (1, 10)
    }

    assert lowest[1, 10] == {"before.0": 4, "grouped.0": 4, "after.0": 10}
    assert lowest[6, 1] == {"before.0": 2, "grouped.0": 2, "after.0": 6}
    assert lowest[8, 1] == {"before.0": 8, "grouped.0": 7, "after.0": 8}
    for (round_to, least), widths in lowest.items():
        found = smallest(graph, Allocation(max_ratio=1.0, round_to=round_to, min_channels=least))
        assert found == cost(graph, Keep.of({group: range(width) for group, width in widths.items()}))


def assert_kept(graph: ChannelGraph, scores: dict[str, np.ndarray], keep: Keep, flops: float, round_to: int) -> None:
    """The target is met, in multiples, and the highest scores stay."""
    assert abs(ratios(graph, keep)["flops"] - flops) <= TOLERANCE + 1e-9 or keep == Keep.all()
    for group, count in channels(graph, keep).items():
        assert count % round_to == 0 or group not in keep.to_dict()
    for group, positions in keep.kept:
        gone = np.setdiff1d(np.arange(graph.by_id[group].size), positions)
        assert scores[group][gone].max() <= scores[group][list(positions)].min()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(GRAPHS)),
    st.sampled_from(STRATEGIES),
    st.sampled_from([1, 2, 3, 4, 6]),
    st.floats(0.01, 1.0),
    st.integers(0, 2**32 - 1),
)
def test_multiples_keep_the_contract(name: str, allocation: Allocation, round_to: int, flops: float, seed: int) -> None:
    graph = GRAPHS[name]
    allocation = dataclasses.replace(allocation, round_to=round_to)
    scores = {group.id: np.random.default_rng(seed).random(group.size) for group in graph.prunable}
    try:
        keep = allocate(graph, scores, Target(flops=flops), allocation)
    except TargetError as refused:
        offers = named(refused)
    else:
        assert_kept(graph, scores, keep, flops, round_to)
        return

    assert offers
    for ratio in offers:
        assert_kept(graph, scores, allocate(graph, scores, Target(flops=ratio), allocation), ratio, round_to)


@pytest.mark.parametrize("round_to", [1, 2, 3])
def test_only_what_no_widths_come_near_is_refused(round_to: int) -> None:
    graph = trace(Chain(7, 11), image())
    allowed = [[n for n in range(1, size + 1) if n % round_to == 0 or n == size] for size in (7, 11)]
    costs = [cost_of_counts(graph, np.array(counts)).flops for counts in itertools.product(*allowed)]
    reachable = np.array(costs) / max(costs)
    allocation = Allocation(name="uniform", max_ratio=1.0, round_to=round_to)
    outcomes = {}
    for flops in np.linspace(reachable.min(), 0.999, 60):
        with contextlib.suppress(TargetError):
            outcomes[flops] = allocate(graph, ascending(graph), Target(flops=float(flops)), allocation)
        assert (flops in outcomes) == (np.abs(reachable - flops).min() <= TOLERANCE)

    assert outcomes


def test_a_multiple_searched_from_a_space() -> None:
    for allocation in (
        {"choice": {"global": {"round_to": {"choice": [1, 8]}}}},
        {"round_to": {"int": [8, 32], "step": 8}},
    ):
        corners = Space.read({"method": "l1", "allocation": allocation}).corners()
        assert {corner.allocation.round_to for corner in corners} in ({1, 8}, {8, 32})

    with pytest.raises(InputError, match=r"space.allocation.round_to: 0 is out of range; allowed: \[1, 512\]"):
        Space.read({"method": "l1", "allocation": {"round_to": {"choice": [0, 8]}}})
