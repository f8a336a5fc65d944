"""A flat allocation in parts, and back."""

from __future__ import annotations

from dataclasses import fields

import pytest

from autoprune.engine.allocation.strategies import (
    STRATEGIES,
    Features,
    Global,
    Ratios,
    Strategy,
    Uniform,
    WidthLimits,
    allocation_of,
    by_plain_scores,
    limits_of,
    strategy_of,
    without_scores,
)
from autoprune.recipe import Allocation

#: An allocation in which every key differs from its default.
KEYS = {
    "normalise": "max",
    "per": "given",
    "prices": {"stage2": 0.5},
    "ratios": {"stage1": 0.3},
    "depth": 0.1,
    "flops": 0.2,
    "stream": -0.3,
    "sensitivity": 0.4,
    "max_ratio": 0.7,
    "min_channels": 11,
    "round_to": 13,
    "device": "h100-bf16",
    "grouped": "either",
}
LIMITS = WidthLimits(max_ratio=0.7, min_channels=11, round_to=13, device="h100-bf16", grouped="either")
PARTS: dict[str, Strategy] = {
    "uniform": Uniform(),
    "ratios": Ratios(ratios={"stage1": 0.3}),
    "global": Global(normalise="max", per="given", prices={"stage2": 0.5}),
    "features": Features(depth=0.1, flops=0.2, stream=-0.3, sensitivity=0.4),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_strategy_reads_its_own_keys_and_limits_the_others(name: str) -> None:
    allocation = Allocation(name=name, **KEYS)  # type: ignore[arg-type]

    assert strategy_of(allocation) == PARTS[name]
    assert limits_of(allocation) == LIMITS


@pytest.mark.parametrize("name", PARTS)
def test_what_is_put_together_says_the_same(name: str) -> None:
    allocation = allocation_of(PARTS[name], LIMITS)
    default = Allocation()

    assert allocation.name == name
    assert (strategy_of(allocation), limits_of(allocation)) == (PARTS[name], LIMITS)
    foreign = set(KEYS) - {field.name for part in (PARTS[name], LIMITS) for field in fields(part)}
    assert all(getattr(allocation, key) == getattr(default, key) for key in foreign)


def test_every_key_of_an_allocation_belongs_to_one_part() -> None:
    read = [field.name for kind in (*STRATEGIES.values(), WidthLimits) for field in fields(kind)]

    assert sorted([*read, "name"]) == sorted(field.name for field in fields(Allocation))


def test_a_global_ranking_gives_way_where_there_are_no_scores_and_can_take_them_as_they_are() -> None:
    assert [without_scores(part) for part in PARTS.values()] == [
        Uniform(),
        PARTS["ratios"],
        Uniform(),
        PARTS["features"],
    ]
    assert [by_plain_scores(part) for part in PARTS.values()] == [
        Uniform(),
        PARTS["ratios"],
        Global(normalise="none", per="given", prices={"stage2": 0.5}),
        PARTS["features"],
    ]
