"""What an allocation says, in parts that the engine works with: one of four strategies, and limits that hold for all.

`recipe.Allocation` is flat, as it stands in a file: it has the keys of all strategies. Here each strategy has a record
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from autoprune.recipe import Allocation


@dataclass(frozen=True, kw_only=True)
class WidthLimits:
    """What holds for the widths of all groups, whatever the strategy; the fields are those of `Allocation`."""

    max_ratio: float
    min_channels: int
    round_to: int | str
    device: str
    grouped: str


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """The same share of every group goes."""


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """Shares go in proportion to a weight per group: `ratios` holds it by group id, stage or pattern."""

    ratios: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Global:
    """The units of all groups together go by their scores, lowest first, each divided by what `normalise` says.

    `isomorphic`: those of each class of groups of equal structure together, and of every class the same share. Then
    they are divided by what a unit of the group counts; see `Allocation.per`.
    """

    normalise: str
    per: str = "channel"
    prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Shares go in proportion to weights that follow from coefficients over features of the groups."""

    depth: float
    flops: float
    stream: float
    sensitivity: float


Strategy = Uniform | Ratios | Global | Features

#: By what `Allocation.name` calls them.
STRATEGIES: Mapping[str, type[Strategy]] = {
    "uniform": Uniform,
    "ratios": Ratios,
    "global": Global,
    "features": Features,
}


def strategy_of(allocation: Allocation) -> Strategy:
    """The strategy that an allocation names, with those of its keys that this strategy reads."""
    kind = STRATEGIES[allocation.name]
    return kind(**_values_for(kind, allocation))


def limits_of(allocation: Allocation) -> WidthLimits:
    """The limits of an allocation."""
    return WidthLimits(**_values_for(WidthLimits, allocation))


def allocation_of(strategy: Strategy, limits: WidthLimits) -> Allocation:
    """The allocation that says this; keys of other strategies have their defaults."""
    name = next(name for name, kind in STRATEGIES.items() if isinstance(strategy, kind))
    return Allocation(name=name, **vars(strategy), **vars(limits))


def _values_for(kind: type[Strategy | WidthLimits], allocation: Allocation) -> dict[str, Any]:
    return {field.name: getattr(allocation, field.name) for field in fields(kind)}


def without_scores(strategy: Strategy) -> Strategy:
    """A strategy whose widths follow from the target alone: a global ranking is replaced by equal shares."""
    return Uniform() if isinstance(strategy, Global) else strategy


def by_plain_scores(strategy: Strategy) -> Strategy:
    """The same strategy; a global ranking takes scores as they are, beside what units save."""
    return replace(strategy, normalise="none") if isinstance(strategy, Global) else strategy
