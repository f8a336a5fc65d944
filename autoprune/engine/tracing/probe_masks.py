"""Which units a probe cuts: ends and random shares of groups, different numbers of them, or all to one width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from autoprune.engine.graph import ChannelGraph, Group, Ints

#: Passes that tell groups of equal width apart; a second one is needed only where there are more of them than numbers.
_PASSES = 3

#: Shares of their units that groups of one width lose: neighbours far apart, since code divides widths and rounds.
_SHARES = (0, *(part / 32 for part in (16, 8, 12, 4, 14, 6, 10, 2, 15, 7, 11, 3, 13, 5, 9, 1)))


def first_masks(graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[np.ndarray]:
    """Which units stay, bool (units,): without some ends of every group, of different numbers where widths are equal.

    Code that takes the width of one group for that of another runs as long as both lose equally.
    """
    ranks = _ranks(graph, groups)
    for number in range(_PASSES):
        counts, told_apart = zip(*map(partial(_count_to_cut, number), groups, ranks), strict=True)
        if any(counts):
            yield mask_without(graph, _ends(groups, counts, 0))
        if all(told_apart):
            return


def _ranks(graph: ChannelGraph, groups: Iterable[Group]) -> list[int]:
    """A number for every group, another one for all those that have an equal width somewhere."""
    free: dict[int, int] = {}
    ranks = []
    for group in groups:
        widths = _full_widths(graph, group)
        ranks.append(max(free.get(width, 0) for width in widths))
        free.update(dict.fromkeys(widths, ranks[-1] + 1))
    return ranks


def _count_to_cut(number: int, group: Group, rank: int) -> tuple[int, bool]:
    """How many units pass `number` cuts from a group: the rank's digit; and whether the passes so far tell it apart."""
    counts = list(dict.fromkeys(max(1, int(share * group.size)) for share in _SHARES))
    digit = rank
    for _ in range(number):
        digit, counts = digit // len(counts), [0, *counts] if counts[0] else counts
    return counts[digit % len(counts)], digit < len(counts)


def _full_widths(graph: ChannelGraph, group: Group) -> list[int]:
    """The numbers of entries that the group has along the dimensions it lies on; of a frozen one, of its units."""
    if group.frozen is not None:
        return [group.size]
    per_unit = graph.widths.per_unit[:, graph.column[group.id]]
    return np.unique(per_unit[per_unit > 0] * group.size).astype(int).tolist()


def even_masks(graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[np.ndarray]:
    """Which units stay where all widths become that of the smallest group: code that compares two sees them equal.

    `if x.shape[1] == y.shape[1]: y = y + x` runs without the addition until a cut makes it true.
    """
    widths = [max(_full_widths(graph, group)) for group in groups]
    goal = min(widths)
    left = [max(1, goal * group.size // width) for group, width in zip(groups, widths, strict=True)]
    if max(widths) > goal:
        yield mask_without(graph, (group.units[count:] for group, count in zip(groups, left, strict=True)))


def further_masks(graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[np.ndarray]:
    """The other ends, random halves of every other group, and random shares of all.

    Code that takes channels by number can be right by luck, when all groups lose equally or only their ends.
    """
    yield mask_without(graph, _ends(groups, [1] * len(groups), 1))
    random = np.random.default_rng(0)
    for half in (groups[0::2], groups[1::2]):
        if half:
            yield mask_without(graph, (random.permutation(g.units)[(g.size + 1) // 2 :] for g in half))
    yield mask_without(
        graph,
        (random.permutation(g.units)[random.integers((g.size + 1) // 2, g.size, endpoint=True) :] for g in groups),
    )


def mask_without(graph: ChannelGraph, gone: Iterable[Ints]) -> np.ndarray:
    """Which units stay, bool (units,), if these go."""
    stays = np.ones(graph.unit_count, dtype=bool)
    stays[np.concatenate([*gone])] = False
    return stays


def _ends(groups: Sequence[Group], counts: Sequence[int], first: int) -> Iterator[Ints]:
    """The first units of every other group, beginning with group number `first`, and the last of those between.

    A shift between two groups shows.
    """
    for i, (group, count) in enumerate(zip(groups, counts, strict=True)):
        yield group.units[:count] if i % 2 == first else group.units[group.size - count :]
