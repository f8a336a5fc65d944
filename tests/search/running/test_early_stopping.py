"""Successive halving: which trial goes on, by hand."""

import pytest

from autoprune.errors import InputError
from autoprune.search.running.early_stopping import SuccessiveHalving, pausing_shares
from autoprune.study.space import Space


def test_a_third_of_those_measured_goes_on_and_the_highest_rung_comes_first():
    halving = SuccessiveHalving((0.0, 0.25), keep=0.34)
    for number in range(6):  # of one cost; 5 is the best
        halving.record(number, 0.0, (0.5, -number / 7))
        halving.pause(number, 0.0)
    assert halving.find_promotable() == 5
    halving.resume(5)
    assert halving.find_promotable() == 4
    halving.resume(4)
    assert halving.find_promotable() is None  # floor(0.34 * 6) = 2
    for number in (4, 5):
        halving.record(number, 0.25, (0.5, -number / 7))
        halving.pause(number, 0.25)
    assert halving.find_promotable() is None  # floor(0.34 * 2) = 0
    halving.record(7, 0.25, (0.5, 0.0))
    assert halving.find_promotable() == 5
    assert halving.rank_waiting() == [5, 4, 3, 2, 1, 0]
    assert [halving.next_pause(share) for share in (None, 0.0, 0.25)] == [0.0, 0.25, 1.0]


def test_a_cheap_recipe_is_not_compared_with_an_expensive_one():
    halving = SuccessiveHalving((0.0,), keep=0.5)
    points = [(0.1, -0.2), (0.1, -0.1), (0.8, -0.9), (0.8, -0.7)]
    for number, point in enumerate(points):
        halving.record(number, 0.0, point)
        halving.pause(number, 0.0)
    found = []
    while (number := halving.find_promotable()) is not None:
        halving.resume(number)
        found.append(number)
    assert sorted(found) == [0, 2]


def test_of_two_alike_one_goes_on_and_then_one_that_is_not_like_it():
    halving = SuccessiveHalving((0.5,), keep=0.5)
    # added to an empty front: 0.7 * 0.8 = 0.56, 0.69 * 0.81 = 0.5589, 0.9 * 0.5 = 0.45, 0.3 * 0.9 = 0.27
    points = [(0.3, -0.8), (0.31, -0.81), (0.1, -0.5), (0.7, -0.9)]
    for number, point in enumerate(points):
        halving.record(number, 0.5, point)
        halving.pause(number, 0.5)
    assert halving.find_promotable() == 0
    halving.resume(0)
    # beside it: 1 adds 0.69 * 0.01, 2 adds 0.2 * 0.5, 3 adds 0.3 * 0.1
    assert halving.rank_waiting() == [2, 3, 1]
    assert halving.find_promotable() == 2


def test_what_adds_nothing_goes_by_rank():
    halving = SuccessiveHalving((0.5,), keep=1.0)
    for number, point in enumerate([(0.2, -0.9), (0.5, -0.3), (0.4, -0.6), (0.6, -0.2)]):
        halving.record(number, 0.5, point)
        halving.pause(number, 0.5)
    halving.resume(0)
    assert halving.rank_waiting() == [2, 1, 3]


def test_pauses_are_the_rungs_of_the_space():
    def space(rungs):
        return Space.read({"method": "l1", "training": {"rungs": rungs}})

    assert pausing_shares(space([0.5, 0, 1])) == (0, 0.5)
    with pytest.raises(InputError, match="with a rung below 1"):
        pausing_shares(space([1]))
