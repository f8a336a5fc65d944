"""Integers that modules hold beside their weights and that count channels: found by value, name and place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from autoprune.graph import Ints, SizeAttribute
from autoprune.rules import Flow

#: Names that say "a number of channels". A name alone proves nothing: the value must equal a width that the module or
#: one inside it works with, and the probe then runs the cut model with the attribute changed.
_SIZE_NAME = re.compile(r"(channels?|chs|features|planes|dims?|width|embed|hidden|filters)(_|$|\d)|size_per_head")
#: Of those, the ones that count something else in common code.
_OTHER = re.compile(r"stride|kernel|norm_dim|group_|_dims?_per|spatial|reduce_dim")

Attributes = Mapping[str, Mapping[str, int]]


def size_attributes(attributes: Attributes, flow: Flow, unit_of_label: Ints) -> tuple[SizeAttribute, ...]:
    """Attributes that follow the channels: those that rules have noted, then those that can mean one width only.

    Args:
        attributes: module -> name -> value, of all integers that modules hold.
        flow: what a labelled forward pass has found.
        unit_of_label: shape (labels,); -1 where no unit owns the label.
    """
    found: dict[tuple[str, str], Ints] = {}
    for path, name, labels in flow.sizes:
        value = attributes.get(path, {}).get(name, 0)
        if value and len(labels) % value == 0 and (labels.reshape(-1, value) == labels[:value]).all():
            found.setdefault((path, name), unit_of_label[labels[:value]])  # instance norm lines up the images' channels
    wanted = {
        (path, value): name for path, own in attributes.items() for name, value in own.items() if _says_size(name)
    }
    widths = _widths_by_module(flow, unit_of_label, wanted)
    for path, own in attributes.items():
        for name, value in own.items():
            units = widths.get((path, value), [])
            if _says_size(name) and units and all(np.array_equal(units[0], other) for other in units[1:]):
                found.setdefault((path, name), units[0])
    return tuple(SizeAttribute(*key, units) for key, units in found.items() if (units >= 0).any())


def _says_size(name: str) -> bool:
    return bool(_SIZE_NAME.search(name)) and not _OTHER.search(name)


def _widths_by_module(
    flow: Flow, unit_of_label: Ints, wanted: Mapping[tuple[str, int], str]
) -> dict[tuple[str, int], list[Ints]]:
    """(module, width) -> the sorted units of every dimension of that width which the module works with."""
    widths: dict[tuple[str, int], list[Ints]] = {}
    for path, labels in _seen(flow):
        units = None
        for module in _ancestors(path):
            if (module, labels.size) in wanted:
                units = np.sort(unit_of_label[labels.ravel()]) if units is None else units
                widths.setdefault((module, labels.size), []).append(units)
    return widths


def _seen(flow: Flow) -> Iterator[tuple[str, Ints]]:
    for op in flow.ops:
        for labels in (*op.out_dims, *([] if op.inputs is None else [op.inputs])):
            yield op.name, labels
    for path, rows in flow.splits:
        yield path, rows[0]
    for path, _, labels in flow.sizes:
        yield path, labels


def _ancestors(path: str) -> Iterable[str]:
    """The module itself, then the ones around it; the root, "", last."""
    parts = path.split(".") if path else []
    return (".".join(parts[:count]) for count in range(len(parts), -1, -1))
