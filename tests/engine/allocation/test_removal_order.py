"""The order in which units go, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from nets import image
from torch import nn

from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.allocation.isomorphism import isomorphic_classes
from autoprune.engine.allocation.removal_order import RemovalOrder, rank_units, removal_order, scale_by_group
from autoprune.engine.allocation.removal_rule import rule_of
from autoprune.engine.allocation.strategies import Global, limits_of
from autoprune.engine.allocation.widths import WidthGrid
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.tracing.trace import trace
from autoprune.recipe import Allocation, Target

ISOMORPHIC = Allocation(name="global", normalise="isomorphic")


def chain(*widths: int) -> ChannelGraph:
    """Groups 0 to 3, of which 1 and 2 lie between kernels of three: 0 lies behind one of one, 3 before one."""
    kernels, inputs = (1, 3, 3, 3, 1), (3, *widths)
    pairs = zip(inputs, (*widths, 5), kernels, strict=True)
    return trace(nn.Sequential(*(nn.Conv2d(n, m, k) for n, m, k in pairs)), image())


SMALL = chain(2, 3, 2, 2)
#: Over their means: 1/2 3/2; 1/3 2/3 2; 3/2 1/2; 1/2 3/2.
SCORES = {"0": [1.0, 3.0], "1": [1.0, 2.0, 6.0], "2": [3.0, 1.0], "3": [1.0, 3.0]}


def order_of(graph: ChannelGraph, scores: dict[str, list[float]], normalise: str, round_to: int = 1) -> RemovalOrder:
    rule = rule_of(graph, Global(normalise=normalise), scores)
    limits = limits_of(Allocation(round_to=round_to))
    return removal_order(rank_units(graph, scores), WidthGrid.of(graph, limits, rule.weights > 0), rule)


@pytest.mark.parametrize(
    ("normalise", "scales"), [("none", [1, 1]), ("mean", [3, 4]), ("max", [6, 7]), ("std", [np.sqrt(14 / 3), 3])]
)
def test_what_scores_of_a_group_are_divided_by(normalise: str, scales: list[float]) -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(2, 5, 1)), image())
    ranked = rank_units(graph, {"0": [1.0, 2.0, 6.0], "1": [7.0, 1.0]})

    assert scale_by_group(ranked, normalise) == pytest.approx(np.array(scales))


def test_a_group_whose_scores_are_all_zero_is_not_divided() -> None:
    assert scale_by_group(rank_units(SMALL, {}), "mean").tolist() == [1, 1, 1, 1]


def test_all_groups_together_go_by_their_scores_over_the_mean() -> None:
    # 1/3 of group 1; 1/2 of 0, 2 and 3 as they come; 2/3 of 1. The last unit of a group stays.
    assert order_of(SMALL, SCORES, "mean").column.tolist() == [1, 0, 2, 3, 1]


def test_of_every_class_the_same_share_goes() -> None:
    # Of groups 1 and 2 together, five units, the shares 1/10, 3/10 and 5/10; of 0 and of 3, two units each, 1/4.
    order = order_of(SMALL, SCORES, "isomorphic")

    assert isomorphic_classes(SMALL).tolist() == [0, 1, 1, 2]
    assert order.column.tolist() == [1, 0, 3, 2, 1]
    assert order.units.tolist() == [1, 1, 1, 1, 1]


def test_inside_a_class_units_go_by_their_scores_over_the_mean() -> None:
    # Over their means: 4/5 1 6/5 of group 1, 1/7 13/7 of group 2.
    scores = {**SCORES, "1": [4.0, 5.0, 6.0], "2": [1.0, 13.0]}

    assert [column for column in order_of(SMALL, scores, "isomorphic").column if column in (1, 2)] == [2, 1, 1]


def test_groups_without_scores_are_no_part_of_their_class() -> None:
    # Without group 2 the class has three units: 1/6 and 3/6.
    del (scores := dict(SCORES))["2"]

    assert order_of(SMALL, scores, "isomorphic").column.tolist() == [1, 0, 3, 1]


def test_blocks_go_when_the_middle_of_their_share_does() -> None:
    # Of group 0 and of 3 a block of four of eight: 2/8. Of 1 and 2, 20 units, blocks of four whose middle units have
    # 2/6.5 and 2/3.5 of the mean, then 6/6.5: 2/20, 6/20 and 10/20.
    graph = chain(8, 12, 8, 8)
    scores = {group.id: list(map(float, range(group.size))) for group in graph.prunable}
    order = order_of(graph, scores, "isomorphic", round_to=4)

    assert order.column.tolist() == [1, 0, 3, 2, 1]
    assert order.units.tolist() == [4] * 5


def test_a_cut_takes_the_same_share_of_every_class() -> None:
    graph = chain(70, 110, 130, 170)
    generator = np.random.default_rng(3)
    scores = {group.id: generator.random(group.size) * 7**column for column, group in enumerate(graph.prunable)}
    widths = allocate(graph, scores, Target(flops=0.4), ISOMORPHIC).widths(graph)

    shares = [widths["0"] / 70, (widths["1"] + widths["2"]) / 240, widths["3"] / 170]
    assert max(shares) - min(shares) <= 1 / 70
    assert widths["1"] / 110 != widths["2"] / 130
