"""Which units a probe cuts: ends and random shares of groups, different numbers of them, or all to one width."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from autoprune.engine.graph import ChannelGraph, Group, Ints

#: Passes that tell groups of equal width apart; a second one is needed only where there are more of them than numbers.
_PASSES = 3

#: Widths to which all groups are cut, where code compares widths.
_MOST_GOALS = 5

#: Shares of their units that groups of one width lose: neighbours far apart, since code divides widths and rounds.
_SHARES = (0, *(part / 32 for part in (16, 8, 12, 4, 14, 6, 10, 2, 15, 7, 11, 3, 13, 5, 9, 1)))


def first_masks(graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[np.ndarray]:
    """Which units stay, bool (units,): without some ends of every group, of different numbers where widths are equal.

    Code that takes the width of one group for that of another runs as long as both lose equally.
    """
    widths = [_full_widths(graph, group) for group in groups]
    lost: list[tuple[int, ...]] = [() for _ in groups]
    for number in range(_PASSES):
        counts, told_apart = _counts_to_cut(groups, widths, lost, _SHARES if number == 0 else (None, *_SHARES))
        lost = [(*before, count) for before, count in zip(lost, counts, strict=True)]
        if any(counts):
            yield mask_without(graph, _ends(groups, counts, 0))
        if told_apart:
            return


def _counts_to_cut(
    groups: Sequence[Group],
    widths: Sequence[Sequence[int]],
    lost: Sequence[tuple[int, ...]],
    shares: Sequence[float | None],
) -> tuple[list[int], bool]:
    """How many units to cut from each group, and whether all that have a width in common have then lost differently.

    Args:
        widths: of each group, the lengths that its units fill; a unit of several entries shortens one by as many.
        lost: the numbers of units that each group lost in the cuts before.
        shares: of its units, what a group may lose, what is wanted most first; None = nothing.
    """
    taken: Counter[tuple[tuple[int, int], ...]] = Counter()
    met: Counter[int] = Counter()
    counts, told_apart = [], True
    for group, own, before in zip(groups, widths, lost, strict=True):
        options = [*dict.fromkeys(0 if share is None else max(1, int(share * group.size)) for share in shares)]
        place = max(met[width] for width in own) % len(options)
        met.update(own)
        alike: dict[int, int] = {}
        for count in (*options[place:], *options[:place]):
            alike[count] = sum(taken[one] for one in _history(group, own, (*before, count)))
            if not alike[count]:
                break
        count = min(alike, key=lambda count: alike[count])
        told_apart &= not alike[count]
        taken.update(_history(group, own, (*before, count)))
        counts.append(count)
    return counts, told_apart


def _history(group: Group, widths: Sequence[int], lost: Sequence[int]) -> list[tuple[tuple[int, int], ...]]:
    """Of each length that a group fills, how much shorter it was in the cuts in which the group lost so many units."""
    return [tuple([(width, count * width // group.size) for count in lost]) for width in widths]


def _full_widths(graph: ChannelGraph, group: Group) -> list[int]:
    """The numbers of entries that the group has along the dimensions it lies on; of a frozen one, of its units."""
    if group.frozen is not None:
        return [group.size]
    per_unit = set(graph.widths.per_unit[:, graph.column[group.id]].tolist())
    return sorted({int(entries * group.size) for entries in per_unit if entries > 0})


def channels(graph: ChannelGraph, group: Group) -> int:
    """The number of channels of a group, and not of the entries over which they are laid out with their pixels."""
    return min(_full_widths(graph, group))


def even_masks(graph: ChannelGraph, groups: Sequence[Group], fixed: Iterable[int]) -> Iterator[np.ndarray]:
    """Which units stay where all widths become equal: code that compares two of them sees that.

    `if x.shape[1] == y.shape[1]: y = y + x` runs without the addition until a cut makes it true. All groups are cut to
    the width of the smallest, then to each of the `fixed` widths that they can be compared with.
    """
    widths = [channels(graph, group) for group in groups]
    steps = [width // group.size for group, width in zip(groups, widths, strict=True)]
    least = min(widths)
    common = least // math.lcm(*steps) * math.lcm(*steps)
    goals = dict.fromkeys((common or least, *sorted(fixed)))
    for goal in [goal for goal in goals if goal < max(widths)][:_MOST_GOALS]:
        left = [max(1, goal // step) for step in steps]
        yield mask_without(graph, (group.units[count:] for group, count in zip(groups, left, strict=True)))


def further_masks(graph: ChannelGraph, groups: Sequence[Group], *, padded: bool = False) -> Iterator[np.ndarray]:
    """The other ends, random halves of every other group, and random shares of all, large ones and small ones.

    Code that takes channels by number can be right by luck, when all groups lose equally or only their ends; and code
    that divides widths and rounds, when they lose little: 9 channels fall into parts of 5 and 4, 8 of 4, 7 of 4 and 3.

    Args:
        padded: whether the model's code pads channels: of three then two stay, since a lone one has no label that shows
            which entries it is padded by.
    """
    yield mask_without(graph, _ends(groups, [1] * len(groups), 1))
    random = np.random.default_rng(0)
    for half in (groups[0::2], groups[1::2]):
        if half:
            yield mask_without(graph, (random.permutation(g.units)[(g.size + 1) // 2 :] for g in half))
    yield mask_without(graph, (_gone_by_chance(random, g, (g.size + 1) // 2, g.size) for g in groups))
    # Of few units one stays, of more two at least: a lone channel has no label that shows what it meets.
    fewest = [1 if group.size < (3 if padded else 4) else 2 for group in groups]
    yield mask_without(
        graph,
        (_gone_by_chance(random, g, low, max(low, g.size // 2)) for g, low in zip(groups, fewest, strict=True)),
    )


def _gone_by_chance(random: np.random.Generator, group: Group, fewest: int, most: int) -> Ints:
    """The units of a group that go where so many of them stay, or a number between these two."""
    shuffled: Ints = random.permutation(group.units)
    return shuffled[random.integers(fewest, most, endpoint=True) :]


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
