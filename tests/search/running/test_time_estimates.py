"""Time estimates by hand."""

import fakes
import pytest

from autoprune.search.running.time_estimates import TimeEstimates


def test_estimates_by_hand():
    estimates = TimeEstimates()
    assert (estimates.whole_trial(), estimates.images(), estimates.average_trial((0.0,), 0.5)) == (0.0, 0, None)
    estimates.learn(fakes.measured(0, (0.0, 0, 20.0), (1.0, 1100, 240.0), control=True))  # 0.2 s an image
    assert estimates.whole_trial() == pytest.approx(240)
    estimates.learn(fakes.measured(1, (0.0, 0, 3.0), (0.25, 275, 30.5), (1.0, 1100, 113.0)))  # 0.1 s an image
    estimates.learn(fakes.measured(2, (0.0, 0, 5.0)))
    estimates.learn(fakes.measured(0, (0.0, 0, 20.0), (1.0, 1100, 240.0), control=True))
    assert (estimates.until_training(), estimates.images(), estimates.training(7)) == (4.0, 1100, pytest.approx(0.7))
    assert estimates.whole_trial() == pytest.approx(4 + 110)
    assert estimates.average_trial((), 1.0) == pytest.approx(4 + 110)
    # a third goes on to a quarter, a ninth to the end
    assert estimates.average_trial((0.0, 0.25), 1 / 3) == pytest.approx(4 + 110 * (0.25 / 3 + 0.75 / 9))
    # all go on to a quarter, a third to the end
    assert estimates.average_trial((0.25,), 1 / 3) == pytest.approx(4 + 110 * (0.25 + 0.75 / 3))


def test_recipes_that_end_before_they_were_measured_are_expected_again():
    estimates = TimeEstimates()
    estimates.learn(fakes.measured(1, (0.0, 0, 4.0), (1.0, 1100, 114.0)))
    estimates.learn(fakes.measured(2, status="stopped", error="constraint", started=7.0, finished=12.0))
    estimates.learn(fakes.measured(3, status="stopped", error="constraint", started=9.0, finished=10.0))
    assert estimates.average_trial((), 1.0) == pytest.approx((114 + 5 + 1) / 3)
    assert estimates.whole_trial() == pytest.approx(114)  # one that goes its whole way needs as much as before
    estimates.learn(fakes.measured(4, (0.0, 0, 4.0)))
    estimates.learn(fakes.measured(4, (0.0, 0, 4.0), (1.0, 1100, 114.0)))  # its second segment is no other trial
    assert estimates.average_trial((), 1.0) == pytest.approx((2 * 114 + 5 + 1) / 4)


def test_a_stage_before_the_cut_is_paid_in_seconds_an_image():
    estimates = TimeEstimates()
    estimates.learn(fakes.measured(1, (0.0, 550, 55.0), (1.0, 1100, 165.0)))
    assert estimates.until_training() == 0
    assert estimates.training(10) == pytest.approx((0.1 + 0.2) / 2 * 10)
