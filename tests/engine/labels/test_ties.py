"""What meets lives and dies together, or stays with the FIXED entries it meets."""

from __future__ import annotations

import numpy as np

from autoprune.engine.labels.ties import Ties


def test_arrays_that_broadcast_are_tied_entry_by_entry() -> None:
    ties = Ties()

    assert ties.tie(np.array([[3, 4, 5], [6, 7, 8]]), np.array([[3, 4, 5]])) is None
    assert [pair.tolist() for pair in ties.pairs] == [[[3, 4, 5, 6, 7, 8], [3, 4, 5, 3, 4, 5]]]


def test_what_meets_a_fixed_entry_is_returned_and_not_tied() -> None:
    ties = Ties()

    beside_fixed = ties.tie(np.array([3, 0, 5, 7]), np.array([4, 6, 0, 8]))

    assert [pair.tolist() for pair in ties.pairs] == [[[3, 7], [4, 8]]]
    assert beside_fixed is not None
    assert sorted(beside_fixed[beside_fixed > 0].tolist()) == [5, 6]


def test_fixed_entries_are_not_frozen_again() -> None:
    ties = Ties()
    ties.freeze(np.array([0, 0]), "nothing to freeze")
    ties.freeze(np.array([[0, 5], [7, 0]]), "a size")

    assert [(labels.tolist(), reason) for labels, reason in ties.freezes] == [([5, 7], "a size")]


def test_joined_ties_leave_both_as_they_were() -> None:
    first, second = Ties(), Ties()
    first.tie(np.array([3]), np.array([5]))
    second.tie(np.array([7]), np.array([11]))
    second.freeze(np.array([13]), "a size")

    both = first.joined(second)

    assert [pair.tolist() for pair in both.pairs] == [[[3], [5]], [[7], [11]]]
    assert len(both.freezes) == 1
    assert (len(first.pairs), len(first.freezes), len(second.pairs)) == (1, 0, 1)
