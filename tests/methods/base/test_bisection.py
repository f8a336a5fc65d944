"""How a method that finds widths itself is brought to a target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from nets import randomised
from regularisers import context
from torch import nn

from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.methods.base.bisection import Bisection, ranks_of_group
from autoprune.methods.base.method import Scores
from autoprune.recipe import Allocation, Target


def one_group() -> ChannelGraph:
    """23 units; the cost is in proportion to how many stay."""
    return context(randomised(nn.Sequential(nn.Conv2d(3, 23, 1), nn.ReLU(), nn.Conv2d(23, 5, 1)))).graph


def two_groups(a: int = 7, b: int = 11) -> ChannelGraph:
    """Groups `0` of a and `2` of b units."""
    layers = [nn.Conv2d(3, a, 1), nn.ReLU(), nn.Conv2d(a, b, 1), nn.ReLU(), nn.Conv2d(b, 5, 1)]
    return context(randomised(nn.Sequential(*layers))).graph


def first(count: Callable[[float], int]) -> Callable[[float], Scores]:
    """The first `count(value)` of 23 units stay; the further back a unit is, the lower it ranks."""
    return lambda value: {"0": ranks_of_group(np.arange(23) < count(value), 23.0 - np.arange(23))}


def gradual(value: float) -> int:
    return round(23 * (1 - value))


def jump(value: float) -> int:
    return 20 if value < 0.3 else 4


@pytest.mark.parametrize("units", [3, 11, 21])
def test_the_value_that_meets_the_target_is_found(units: int) -> None:
    cut = Bisection(one_group(), Target(flops=units / 23), Allocation()).find(first(gradual), 0.0, 1.0)

    assert cut.keep == Keep.of({"0": range(units)})
    assert gradual(cut.value) == units
    assert cut.adjusted == 0


@pytest.mark.parametrize(
    ("units", "nearest", "adjusted"), [(18, 20, 2), (22, 20, 2), (14, 20, 6), (3, 4, 1), (7, 4, 3)]
)
def test_where_the_method_jumps_units_come_or_go_in_order_from_the_nearest_value(
    units: int, nearest: int, adjusted: int
) -> None:
    cut = Bisection(one_group(), Target(flops=units / 23), Allocation()).find(first(jump), 0.0, 1.0)

    assert cut.keep == Keep.of({"0": range(units)})
    assert jump(cut.value) == nearest
    assert cut.adjusted == adjusted


def test_a_range_that_ends_too_early_is_made_up_for() -> None:
    cut = Bisection(one_group(), Target(flops=5 / 23), Allocation()).find(first(gradual), 0.0, 0.5)

    assert cut.keep == Keep.of({"0": range(5)})
    assert cut.adjusted == gradual(cut.value) - 5 > 5


def test_widths_are_raised_to_allowed_ones() -> None:
    allocation = Allocation(round_to=4)
    cut = Bisection(one_group(), Target(flops=12 / 23), allocation).find(first(lambda value: 10), 0.0, 1.0)

    assert cut.keep == Keep.of({"0": range(12)})
    assert cut.adjusted == 2


def test_near_enough_is_left_as_the_method_has_it() -> None:
    graph = context(randomised(nn.Sequential(nn.Conv2d(3, 203, 1), nn.ReLU(), nn.Conv2d(203, 5, 1)))).graph
    ranks = {"0": ranks_of_group(np.arange(203) < 160, 203.0 - np.arange(203))}
    cut = Bisection(graph, Target(flops=160 / 203 - 0.008), Allocation()).find(lambda _: ranks, 0.0, 1.0)

    assert cut.keep == Keep.of({"0": range(160)})
    assert cut.adjusted == 0


def flops_of(graph: ChannelGraph, keep: Keep) -> Target:
    return Target(flops=cost(graph, keep).ratios(cost(graph, Keep.all()))["flops"])


def test_units_of_all_groups_go_by_rank_alone() -> None:
    graph = two_groups(167, 101)
    # as multiples of their groups' means the first of the second group would be lowest
    ranks = {
        "0": ranks_of_group(np.ones(167) > 0, np.arange(167) / 10000 + 0.2),
        "2": ranks_of_group(np.ones(101) > 0, np.arange(101) / 10 + 0.3),
    }
    wanted = Keep.of({"0": range(40, 167)})
    cut = Bisection(graph, flops_of(graph, wanted), Allocation()).find(lambda _: ranks, 0.0, 1.0)

    assert cut.keep == wanted
    assert cut.adjusted == 40


@pytest.mark.parametrize("units", [6, 5])
def test_groups_that_may_not_become_narrower_stay_whole(units: int) -> None:
    graph = two_groups()
    allocation = Allocation(name="ratios", ratios={"2": 1.0})
    ranks = {
        "0": ranks_of_group(np.zeros(7) > 0, np.ones(7)),
        "2": ranks_of_group(np.arange(11) < 6, 11.0 - np.arange(11)),
    }
    wanted = Keep.of({"2": range(units)})
    cut = Bisection(graph, flops_of(graph, wanted), allocation).find(lambda _: ranks, 0.0, 1.0)

    assert cut.keep == wanted


def test_ranks_put_all_that_stay_before_all_that_go() -> None:
    stays = np.array([False, True, True, False, True])
    ranks = ranks_of_group(stays, np.array([np.inf, 0.0, 3.0, 1.0, np.inf]))

    assert ranks.tolist() == [np.nextafter(1, 0), 1, 1.75, 0.5, 2]
