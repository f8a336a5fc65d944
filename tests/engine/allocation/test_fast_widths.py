"""Which widths are worth their time, by hand; a table made up for one small network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from nets import image
from torch import nn

from autoprune.engine.allocation.allocate import TOLERANCE, allocate, check_widths, smallest
from autoprune.engine.allocation.fast_widths import (
    BLOCK,
    WIDEST_GAP,
    WIDEST_GAP_IF_NARROW,
    kind_of,
    without_gaps,
    worth_their_time,
)
from autoprune.engine.allocation.width_times import shipped_devices
from autoprune.engine.allocation.widths import allowed_widths, slow_groups
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.recipe import Allocation, Target


def worth(times: dict[int, float]) -> list[int]:
    return worth_their_time(np.array(list(times)), np.array(list(times.values())))


class TestWorthTheirTime:
    def test_of_blocks_only_the_widest_of_each_is(self) -> None:
        assert worth({8: 10, 16: 10, 24: 20, 32: 20, 40: 30, 48: 30}) == [16, 32, 48]

    def test_all_are_where_time_is_in_proportion(self) -> None:
        assert worth({8: 8, 16: 16, 24: 24, 31: 31}) == [8, 16, 24, 31]

    def test_none_that_a_wider_one_undercuts_is_and_one_behind_it_may_be(self) -> None:
        """As on an H100 from 64 to 96 channels, where 72 takes longer than both."""
        assert worth({64: 47, 72: 114, 80: 87, 96: 74}) == [64, 96]

    def test_a_quarter_of_the_share_must_be_saved(self) -> None:
        """Half the channels: an eighth of the time, 100 to 87.5, is just enough."""
        assert worth({8: 87.5, 16: 100}) == [8, 16]
        assert worth({8: 87.6, 16: 100}) == [16]

    def test_where_time_does_not_depend_on_width_only_the_widest_is(self) -> None:
        assert worth({8: 5, 16: 5, 24: 5}) == [24]


NETWORK = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 12, 1), nn.Conv2d(12, 5, 1))


def ascending(graph: ChannelGraph) -> dict[str, range]:
    """Scores by which the first units go first."""
    return {group.id: range(group.size) for group in graph.prunable}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Layers go by blocks of 16 channels if their kernel sees several positions, else in proportion."""
    blocks = {str(width): 10.0 * -(-width // 16) for width in range(4, 65, 4)}
    proportion = {str(width): float(width) / 1000 for width in range(4, 65, 4)}
    curves = [
        {"kind": "spatial", "positions": 16, "area": 9, "us": blocks},
        {"kind": "pointwise", "positions": 16, "area": 1, "us": proportion},
    ]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"device": "made up", "curves": curves}))
    return file


def test_the_layers_of_a_group_add_up_and_groups_that_would_have_few_widths_get_more(table: Path) -> None:
    """40: 16, 32 and 40 by blocks, which are more than 5 apart, so that multiples of 4 come in.

    12 is between kernels of one position: its table says 4, 8 and 12, which are 4 apart, and an eighth is 1.
    """
    graph = trace(NETWORK, image())
    widths = allowed_widths(graph, Allocation(round_to="auto", device=str(table)), graph.by_id)

    assert widths["0"].tolist() == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert widths["2"].tolist() == [*range(1, 13)]


@pytest.mark.parametrize(
    ("widths", "found"),
    [
        ([*range(16, 129, 16)], [*range(16, 129, 16)]),
        ([16, 32], [*range(4, 33, 4)]),
        ([24], [*range(2, 25, 2)]),
        ([3], [1, 2, 3]),
        ([1], [1]),
        ([64, 128, 200], [16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 200]),
    ],
)
def test_gaps_of_more_than_an_eighth_are_filled(widths: list[int], found: list[int]) -> None:
    assert without_gaps(widths, WIDEST_GAP_IF_NARROW) == found


def test_in_a_network_with_wide_groups_gaps_may_be_a_quarter_or_a_block(table: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 40, 3), nn.Conv2d(40, 12, 1), nn.Conv2d(12, 80, 3), nn.Conv2d(80, 5, 1))
    graph = trace(network, image())
    widths = allowed_widths(graph, Allocation(round_to="auto", device=str(table)), graph.by_id)

    assert widths["0"].tolist() == [16, 32, 40]  # ten apart, or a block
    assert widths["2"].tolist() == [16, 32, 48, 64, 80]


def test_a_cut_keeps_to_them_and_meets_its_target(table: Path) -> None:
    """32 and 12 of 40 and 12: 32/40 of the first two layers and all of the last, by hand 0.8 * 98 % + 2 %."""
    graph = trace(NETWORK, image())
    allocation = Allocation(name="uniform", round_to="auto", device=str(table))
    keep = allocate(graph, ascending(graph), Target(flops=0.804), allocation)

    assert (keep.widths(graph)["0"], keep.widths(graph)["2"]) == (32, 12)
    assert slow_groups(graph, keep, allocation) == []


def test_where_fast_widths_are_too_coarse_finer_ones_meet_the_target_and_are_named(table: Path) -> None:
    """61 % of 300 channels are 183: blocks of 16 give 176 or 192, 59 or 64 %, and multiples of 8 give 184."""
    graph = trace(nn.Sequential(nn.Conv2d(3, 300, 3), nn.ReLU(), nn.Conv2d(300, 5, 1)), image())
    allocation = Allocation(name="uniform", round_to="auto", device=str(table))
    keep = allocate(graph, ascending(graph), Target(flops=0.61), allocation)

    assert keep.widths(graph)["0"] == 184
    assert cost(graph, keep).ratios(cost(graph, Keep.all()))["flops"] == pytest.approx(0.61, abs=TOLERANCE)
    assert slow_groups(graph, keep, allocation) == ["0"]
    check_widths(graph, Target(flops=0.61), allocation)


def test_what_can_be_reached_is_what_the_finest_widths_reach(table: Path) -> None:
    graph, allocation = trace(NETWORK, image()), Allocation(round_to="auto", device=str(table), max_ratio=1.0)

    assert smallest(graph, allocation) == smallest(graph, Allocation(max_ratio=1.0))


@pytest.mark.parametrize("device", shipped_devices())
def test_every_group_of_a_network_has_near_enough_widths_on_every_shipped_device(device: str) -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 512, 3), nn.Conv2d(512, 48, 1), nn.Conv2d(48, 16, 3)), image())
    for widths in allowed_widths(graph, Allocation(round_to="auto", device=device), graph.by_id).values():
        assert np.diff(widths, prepend=0).max() <= max(BLOCK, WIDEST_GAP * widths[-1])


def test_kinds_of_layers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Flatten())
    net.append(nn.Linear(16 * 4 * 4, 5))
    kinds = {op.name: kind_of(op) for op in trace(net, image(8)).ops}

    assert kinds == {"0": "spatial", "1": "depthwise", "2": "pointwise", "4": "pointwise"}
