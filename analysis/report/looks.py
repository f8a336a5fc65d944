"""How a method looks: the same colour and the same mark in every figure of every report.

The six colours are those of Okabe and Ito (2008) that can be seen on white and on black; they stay apart for all common
kinds of colour blindness. More than six methods differ by the shape of their marks as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from autoprune.study.outcome import DENSE, RANDOM

#: Controls that every comparison of methods shows, whether they ran or not.
ALWAYS = (DENSE, RANDOM)

GREY = "#888888"

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "pentagon", "star")

#: Methods in the order they take colours, then shapes: those that searches mostly begin with get the circles.
ORDER = (
    *("l1", "taylor", "fuzzy", "bn_scale", "fpgm", "hinge"),
    *("l2", "greg1", "group_fisher", "sfp", "epruner", "blend"),
    *("greg2", "increg", "orthoreg", "l0_hqs", "channel_pruning", "ldrf"),
    *("asfp", "srfp", "asrfp", "svd"),
)


@dataclass(frozen=True)
class Look:
    """A colour and plotly's name of a mark."""

    colour: str
    symbol: str


def method_looks(names: Iterable[str]) -> dict[str, Look]:
    """A look per method; controls are grey diamonds. Methods of other packages take what those of `ORDER` leave."""
    wanted = set(names)
    taken = {name: place for place, name in enumerate(ORDER) if name in wanted}
    for name in sorted(wanted - set(ORDER) - set(ALWAYS)):
        taken[name] = _free_place(name, set(taken.values()))
    looks = {name: _look(place) for name, place in taken.items()}
    return {**dict.fromkeys(ALWAYS, Look(GREY, "diamond")), **looks}


def _free_place(name: str, taken: set[int]) -> int:
    """The place that a name's hash says, behind the known methods, or the next one that is free."""
    count = len(COLOURS) * len(SYMBOLS)
    start = len(ORDER) + zlib.crc32(name.encode()) % (count - len(ORDER))
    places = (*range(start, count), *range(len(ORDER), start), *range(len(ORDER)))
    return next((place for place in places if place not in taken), start)


def _look(place: int) -> Look:
    return Look(COLOURS[place % len(COLOURS)], SYMBOLS[place // len(COLOURS)])
