"""The graph's lookups, on a graph small enough to write down."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.engine.graph import ChannelGraph, Group, Slot, Widths, unit_table, with_fixed
from autoprune.errors import InputError


def units(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


FIRST = Slot("stem.conv.weight", 0, "out", units(0, 1, 2))
INPUTS = Slot("head.weight", 1, "in", units(-1, 2, 1, 0, 3))
FILTERS = Slot("head.weight", 0, "out", units(4, 3))
ROOT = Slot("scale", 0, "other", units(3, 4))

GRAPH = ChannelGraph(
    groups=(
        Group("stem.conv", units(2, 0, 1), None, 0, ("stem.conv", "head")),
        Group("head", units(3, 4), "reaches the model's output", 0, ("head",)),
    ),
    slots=(FIRST, INPUTS, FILTERS, ROOT),
    ops=(),
    tensors={},
    widths=Widths(np.zeros(0), np.zeros((0, 1))),
    cross_channel=(),
    attributes=(),
    inputs=(),
    unit_count=5,
)


def test_a_slot_knows_its_layer_and_which_entries_a_unit_owns() -> None:
    assert [slot.layer for slot in GRAPH.slots] == ["stem.conv", "head", "head", ""]
    assert INPUTS.owned.tolist() == [False, True, True, True, True]


def test_a_slot_is_found_by_its_tensor_and_dimension() -> None:
    assert GRAPH.slot("head.weight", 1) is INPUTS
    assert GRAPH.slot("head.weight", 0) is FILTERS
    assert GRAPH.slot("head.weight", 2) is None
    assert GRAPH.slot("tail.weight", 0) is None


def test_the_last_row_of_a_table_by_unit_answers_for_entries_without_one() -> None:
    table = GRAPH.per_unit(7, [(units(3, 1), 5), (units(0, 4), [11, 13])])

    assert table.tolist() == [11, 5, 7, 5, 13, 7]
    assert table[INPUTS.units].tolist() == [7, 7, 5, 11, 5]
    assert unit_table(2, np.float32(1)).dtype == np.float32
    assert with_fixed(units(3, 5, 7, 9, 11), 0)[INPUTS.units].tolist() == [0, 7, 5, 3, 9]


def test_the_column_of_a_unit_is_that_of_its_prunable_group() -> None:
    assert GRAPH.column_of_unit.tolist() == [0, 0, 0, -1, -1, -1]


def test_a_frozen_group_is_refused_with_its_reason_and_an_unknown_one_with_the_names() -> None:
    assert GRAPH.group("stem.conv").size == 3
    with pytest.raises(InputError, match=r"group 'head' is frozen: reaches the model's output; allowed: stem\.conv"):
        GRAPH.group("head")
    with pytest.raises(InputError, match=r"unknown group 'stem\.conw' \(did you mean 'stem\.conv'\?\)"):
        GRAPH.group("stem.conw")


def test_all_slots_end_to_end() -> None:
    owners, places, begins = GRAPH.entries

    assert owners.tolist() == [0, 1, 2, -1, 2, 1, 0, 3, 4, 3, 3, 4]
    assert places.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 0, 1]
    assert begins.tolist() == [0, 3, 8, 10, 12]
