"""What a training along a lineage is expected to give."""

import math
from itertools import pairwise

import pytest

from autoprune.search.proposing.lineage_expectation import GUESS, KEPT, POWER, Expectation, Training

DENSE = 0.9
KNOWN = Expectation(DENSE, (0.02, -0.05, -0.01), 0.04, 0.3)


def trainings(truth, count, offset=0.0):
    costs = [0.93**k for k in range(count + 1)]
    lack = [0.003 * (k % 5) for k in range(count + 1)]
    for k, (start, end) in enumerate(pairwise(costs)):
        parent = DENSE - 0.1 * math.log(start) ** 2 - lack[k]
        length = (1.0, 1.0, 2.0, 4.0)[k % 4]
        accuracy = truth.child(parent, start, end, length) + offset * (-1) ** k
        yield Training(parent_cost=start, parent_height=parent, cost=end, height=accuracy, length=length)


def test_a_child_by_hand():
    # ceilings: 0.9 + 0.02 ln t - 0.05 ln^2 t - 0.01 ln^3 t at ln t = -0.5 and -0.7
    at_parent, at_child = 0.9 - 0.01 - 0.0125 + 0.00125, 0.9 - 0.014 - 0.0245 + 0.00343
    by_hand = at_child - KEPT * (at_parent - 0.85) - 0.04 * 0.2**POWER
    assert KNOWN.child(0.85, math.exp(-0.5), math.exp(-0.7)) == pytest.approx(by_hand)


def test_a_model_at_its_ceiling_gains_nothing_by_training_on():
    cost = math.exp(-0.5)
    ceiling = 0.9 - 0.01 - 0.0125 + 0.00125
    assert KNOWN.child(ceiling, cost, cost) == pytest.approx(ceiling)
    assert KNOWN.child(ceiling - 0.02, cost, cost) == pytest.approx(ceiling - KEPT * 0.02)


def test_many_small_cuts_end_above_one_large_one():
    small = large = DENSE
    for start, end in ((1.0, 0.8), (0.8, 0.64), (0.64, 0.512)):
        small = KNOWN.child(small, start, end)
    assert small > KNOWN.child(large, 1.0, 0.512)


def test_a_longer_training_leaves_less_to_the_dense_model():
    lack = DENSE - KNOWN.child(0.85, 0.6, 0.4)
    assert DENSE - KNOWN.child(0.85, 0.6, 0.4, length=5.0) == pytest.approx(lack / 5**0.3)


def test_what_ends_above_the_dense_model_is_expected_there_however_long_it_is_trained():
    above = KNOWN.child(0.95, 0.9, 0.9)
    assert above > DENSE
    assert KNOWN.child(0.95, 0.9, 0.9, length=5.0) == above


def test_without_trainings_the_guess_stands():
    found = Expectation.fitted(DENSE, [])
    assert (*found.ceiling, found.shock, found.patience) == pytest.approx(GUESS)


def test_many_trainings_replace_the_guess():
    found = Expectation.fitted(DENSE, trainings(KNOWN, 40))
    for cost in (0.1, 0.3, 0.6):
        assert found.child(0.8, cost / 0.8, cost) == pytest.approx(KNOWN.child(0.8, cost / 0.8, cost), abs=0.002)
    assert found.patience == pytest.approx(KNOWN.patience, abs=0.02)


def test_one_training_that_failed_says_little_about_the_others():
    sound = list(trainings(KNOWN, 30, offset=0.001))
    failed = Training(parent_cost=0.4, parent_height=0.8, cost=0.35, height=0.1)
    with_it, without = (Expectation.fitted(DENSE, known) for known in ([*sound, failed], sound))
    assert with_it.child(0.8, 0.35, 0.3) == pytest.approx(without.child(0.8, 0.35, 0.3), abs=0.004)
