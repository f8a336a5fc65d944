"""Labels follow their entries through reshapes."""

from __future__ import annotations

import numpy as np

from autoprune.engine.labels.blocks import drop_constant, project, renumber, reshape, segments, spread


def test_segments_match_runs_of_dimensions() -> None:
    assert [([0], [0]), ([1], [1, 2]), ([2, 3], [3])] == segments((2, 6, 4, 5), (2, 2, 3, 20))
    assert [([1], [0])] == segments((1, 7), (7, 1))
    assert segments((2, 3), (7,)) is None


def test_flattening_repeats_a_channel_label_for_every_pixel() -> None:
    moved, ties = reshape(((1,), np.array([4, 5])), (3, 2, 2, 2), (3, 8))

    assert moved is not None
    assert (1,) == moved[0]
    assert [4, 4, 4, 4, 5, 5, 5, 5] == moved[1].tolist()
    assert ties == []


def test_splitting_a_dimension_ties_its_rows() -> None:
    moved, ties = reshape(((1,), np.array([3, 4, 5, 6, 7, 8])), (2, 6), (2, 2, 3))

    assert moved is not None
    assert moved[0] == (1, 2)
    assert moved[1].tolist() == [[3, 4, 5], [6, 7, 8]]
    assert [(a.tolist(), b.tolist()) for a, b in ties] == [([[3, 4, 5], [6, 7, 8]], [[3, 4, 5], [3, 4, 5]])]


def test_labels_cannot_follow_a_reshape_that_cuts_across_or_a_dimension_of_size_one() -> None:
    assert reshape(((0,), np.array([3, 4])), (2, 3), (7,)) == (None, [])
    assert reshape(((0,), np.array([3])), (1, 5), (5,)) == (None, [])


def test_a_block_over_more_dimensions_repeats_along_the_new_ones() -> None:
    block = ((2,), np.array([3, 4, 5]))

    assert spread(block, (1, 2), (7, 2, 3)).tolist() == [[3, 4, 5], [3, 4, 5]]
    assert drop_constant((1, 2), spread(block, (1, 2), (7, 2, 3)))[0] == (2,)
    assert spread(((0, 1), np.array([[3, 4, 5], [6, 7, 8]])), (1, 0), (2, 3)).tolist() == [[3, 6], [4, 7], [5, 8]]


def test_one_dimension_of_a_joint_block_is_its_first_row() -> None:
    block = ((1, 3), np.array([[3, 4, 5], [6, 7, 8]]))

    assert project(block, 3).tolist() == [3, 4, 5]
    assert project(block, 1).tolist() == [3, 6]
    assert [dims for dims, _ in renumber([block], {1: 0, 3: 1})] == [(0, 1)]
    assert renumber([block], {1: 0}) == []
