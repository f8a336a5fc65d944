"""Numbers that modules hold beside their weights and that count channels: found by value, place and name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from autoprune.engine.graph import Ints, SizeAttribute
from autoprune.engine.labels.evidence import Evidence

# Nothing here proves that an attribute counts channels: the probe then runs the cut model with the attribute changed.
#: Names that say "a number of channels", enough for a width that the module or one inside it works with.
_SIZE = re.compile(r"(channels?|chs|features|planes|dims?|width|embed|hidden|filters)(_|$|\d)")

#: Names that say something else, even where the module's own code has just split, reshaped or padded by that length.
_NO_WIDTH = r"kernel|stride|dilation|groups?$|heads?$|num_paths|radix|cardinal|window|patch|classes|layers|per_"
_OTHER, _NO_PADDING = re.compile(f"{_NO_WIDTH}|pad"), re.compile(_NO_WIDTH)


#: Module -> attribute -> the numbers it holds; a lone number is a tuple of one.
Attributes = Mapping[str, Mapping[str, tuple[int, ...]]]

Parts = tuple[Ints, ...]


def size_attributes(attributes: Attributes, evidence: Evidence, unit_of_label: Ints) -> tuple[SizeAttribute, ...]:
    """Attributes that follow the channels.

    First those that rules have noted and those by which the module pads channels, then those that equal a length to
    which the module's own code splits or reshapes, or the code of the module around it; then those whose name says that
    they are a width and that can mean one only.

    Args:
        attributes: all numbers that modules hold.
        evidence: what a labelled forward pass has found.
        unit_of_label: shape (labels,); -1 where no unit owns the label.
    """
    found: dict[tuple[str, str], Parts] = {}
    for path, name, labels in evidence.attributes:
        (value, *more) = attributes.get(path, {}).get(name, (0,))
        if value and not more and len(labels) % value == 0 and (labels.reshape(-1, value) == labels[:value]).all():
            found.setdefault((path, name), (labels[:value],))  # instance norm lines up the images' channels
    wanted = {(path, value) for path, own in attributes.items() for value in own.values()}
    sources = (
        (evidence.paddings, _may_pad),
        (evidence.lengths, _not_other),
        (_lengths_around(evidence, attributes), _says_size),
        (_working_widths(evidence), _says_size),
    )
    for lengths, names in sources:
        places = _by_place(lengths, wanted, unit_of_label)
        for path, own in attributes.items():
            for name, value in own.items():
                if names(name) and (path, value) in places and (parts := places[path, value]) is not None:
                    found.setdefault((path, name), parts)
    units = {key: tuple(unit_of_label[labels] for labels in parts) for key, parts in found.items()}
    return tuple(SizeAttribute(*key, parts) for key, parts in units.items() if any((part >= 0).any() for part in parts))


def lengths_by_attribute(attributes: Attributes, evidence: Evidence) -> dict[tuple[str, str], list[Ints]]:
    """(module, attribute) -> the label arrays of its length with which the module works, if there are several.

    Where its own code splits or views nothing by that length, and the attribute's name says that it is a width, they
    are those of layers right inside it: `assert x.shape[1] == self.channels` before a convolution of as many channels.
    """
    found = _lone_lengths(evidence.lengths)
    widths = _lone_lengths(_widths_right_inside(evidence))
    several: dict[tuple[str, str], list[Ints]] = {}
    for path, own in attributes.items():
        for name, value in own.items():
            if len(value) == 1 and _not_other(name):
                labels = found.get((path, value[0]), {})
                if not labels and _says_size(name):
                    labels = widths.get((path, value[0]), {})
                if len(labels) > 1:
                    several[path, name] = list(labels.values())
    return several


def _lone_lengths(lengths: Iterable[tuple[str, Parts]]) -> dict[tuple[str, int], dict[bytes, Ints]]:
    """(module, length) -> the label arrays as long as that, each once."""
    found: dict[tuple[str, int], dict[bytes, Ints]] = {}
    for path, parts in lengths:
        if len(parts) == 1:
            found.setdefault((path, parts[0].size), {})[parts[0].tobytes()] = parts[0]
    return found


def _widths_right_inside(evidence: Evidence) -> Iterator[tuple[str, Parts]]:
    """The widths that an operation reads and puts out, for the module that runs it and the one around that."""
    for op in evidence.ops:
        for labels in ([] if op.inputs is None else [op.inputs], op.out_dims):
            yield from ((path, (part.ravel(),)) for part in labels for path in {op.name, op.name.rpartition(".")[0]})


def doubtful_names(attributes: Attributes, found: Iterable[SizeAttribute]) -> frozenset[str]:
    """Names that say nothing of channels and that follow them in less than half of the modules that have them.

    The number of a layer in its network is a width by chance: after a cut the chunks of layer 16 are 16 wide.
    """
    follow = Counter(attribute.name for attribute in found if not _says_size(attribute.name))
    held = Counter(name for own in attributes.values() for name in own)
    return frozenset(name for name, count in follow.items() if 2 * count < held[name])


def _says_size(name: str) -> bool:
    return bool(_SIZE.search(name)) and not _OTHER.search(name)


def _may_pad(name: str) -> bool:
    return not _NO_PADDING.search(name)


def _not_other(name: str) -> bool:
    return not _OTHER.search(name)


def _by_place(
    lengths: Iterable[tuple[str, Parts]], wanted: set[tuple[str, tuple[int, ...]]], unit_of_label: Ints
) -> dict[tuple[str, tuple[int, ...]], Parts | None]:
    """(module, lengths) -> the label arrays of these lengths; None if candidates would be cut differently."""
    places: dict[tuple[str, tuple[int, ...]], Parts | None] = {}
    for path, parts in lengths:
        key = (path, tuple(part.size for part in parts))
        if key in wanted:
            first = places.setdefault(key, parts)
            places[key] = first if first is not None and _lose_alike(first, parts, unit_of_label) else None
    return places


def _lose_alike(some: Parts, others: Parts, unit_of_label: Ints) -> bool:
    return all(
        a is b or np.array_equal(*(np.sort(unit_of_label[part.ravel()]) for part in (a, b)))
        for a, b in zip(some, others, strict=True)
    )


def _lengths_around(evidence: Evidence, attributes: Attributes) -> Iterator[tuple[str, Parts]]:
    """Lengths that a module's code works with, for the modules right inside it: it may ask these for the number."""
    inside: dict[str, list[str]] = {}
    for path in attributes:
        if path:
            inside.setdefault(path.rpartition(".")[0], []).append(path)
    for path, parts in evidence.lengths:
        yield from ((child, parts) for child in inside.get(path, ()))


def _working_widths(evidence: Evidence) -> Iterator[tuple[str, Parts]]:
    """Every width, for the module that works with it and all modules around that."""
    for op in evidence.ops:
        for labels in (*op.out_dims, *([] if op.inputs is None else [op.inputs])):
            yield from ((module, (labels.ravel(),)) for module in _enclosing_modules(op.name))
    for path, parts in evidence.lengths:
        yield from ((module, parts) for module in _enclosing_modules(path))
    for path, _, labels in evidence.attributes:
        yield from ((module, (labels,)) for module in _enclosing_modules(path))


def _enclosing_modules(path: str) -> Iterable[str]:
    """The module itself, then the ones around it; the root, "", last."""
    parts = path.split(".") if path else []
    return (".".join(parts[:count]) for count in range(len(parts), -1, -1))
