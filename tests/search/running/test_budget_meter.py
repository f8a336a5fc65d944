"""Budgets by hand: what is used up, what still fits, how long it takes; and searches that end with theirs."""

import math

import fakes
import pytest

from autoprune.search.proposing.lineage_planner import Room
from autoprune.search.running.budget_meter import BudgetMeter, Spending
from autoprune.search.running.limits import Limits


def test_what_is_spent_counts_every_recipe_once_and_those_that_run_as_if_they_had_ended():
    spent = Spending(gpus=0.5)
    spent.begin(1, 1100, 70.0)
    assert (spent.images(), spent.images(ahead=False), spent.gpu_seconds()) == (1100, 0, 35.0)
    spent.end(fakes.measured(1, (0.0, 0, 3.0), (0.25, 275, 11.0)))
    assert (spent.images(), spent.gpu_seconds()) == (275, 5.5)
    spent.begin(1, 825, 31.0)
    assert (spent.images(), spent.gpu_seconds()) == (1100, 21.0)
    spent.end(fakes.measured(1, (0.0, 0, 3.0), (0.25, 275, 11.0), (1.0, 1100, 41.0)))
    spent.end(fakes.measured(2))
    assert (spent.images(), spent.gpu_seconds()) == (1100, 20.5)


def meter(**limits):
    """Half a GPU a trial; one trial has ended with 100 images in 5 seconds, of which training took 4."""
    budget = BudgetMeter(Limits(**limits), gpus=0.5)
    budget.end(fakes.measured(1, (0.0, 0, 1.0), (1.0, 100, 5.0), images=100))
    return budget


@pytest.mark.parametrize(
    ("limits", "now", "used_up"),
    [
        ({}, 1e6, False),
        ({"trials": 1}, 0.0, False),  # trials are counted when they are handed out
        ({"deadline": 7.0}, 6.9, False),
        ({"deadline": 7.0}, 7.0, True),
        ({"images": 101}, 0.0, False),
        ({"images": 100}, 0.0, True),
        ({"gpu_seconds": 2.6}, 0.0, False),
        ({"gpu_seconds": 2.5}, 0.0, True),
    ],
)
def test_a_budget_is_used_up_at_its_first_limit(limits, now, used_up):
    assert meter(**limits).is_used_up(now) == used_up


@pytest.mark.parametrize(
    ("limits", "seconds", "images"),
    [
        ({}, math.inf, math.inf),
        ({"deadline": 20.0}, 7.0, math.inf),  # now 13
        ({"images": 180}, math.inf, 30),  # ended: 100, running: 50
        ({"gpu_seconds": (5 + 50 * 0.04 + 7) / 2}, 7.0, math.inf),  # half a GPU a trial
        ({"gpu_seconds": (5 + 50 * 0.04 + 7) / 2, "deadline": 15.0, "images": 151}, 2.0, 1),
    ],
)
def test_there_is_room_for_what_is_left_when_all_that_runs_has_ended(limits, seconds, images):
    budget = meter(**limits)
    budget.begin(2, 50)
    assert budget.room(13.0) == Room(seconds=pytest.approx(seconds), images=images)


@pytest.mark.parametrize(
    ("limits", "affordable"),
    [
        ({}, True),
        ({"deadline": 20.0}, True),  # now 13, and 7 seconds
        ({"deadline": 19.9}, False),
        ({"images": 100 + 50 + 30}, True),  # ended, running, and 30 more
        ({"images": 100 + 50 + 29}, False),
        ({"gpu_seconds": (5 + 50 * 0.04 + 7) / 2}, True),
        ({"gpu_seconds": (5 + 50 * 0.04 + 7) / 2 - 0.01}, False),
    ],
)
def test_a_trial_is_afforded_beside_those_that_run(limits, affordable):
    budget = meter(**limits)
    budget.begin(2, 50)

    assert budget.affords(7.0, 30, now=13.0) == affordable


def test_the_share_that_is_used_is_that_of_the_limit_that_is_nearest():
    assert meter().used_share(3, now=11.0) is None
    assert meter(trials=11).used_share(3, now=11.0) == 3 / 11
    assert meter(trials=11, deadline=22.0).used_share(3, now=11.0) == 0.5
    assert meter(trials=11, images=130).used_share(3, now=11.0) == 100 / 130
    assert meter(gpu_seconds=2.0).used_share(3, now=11.0) == 1.0


def test_the_time_left_is_that_to_the_first_limit():
    assert meter().seconds_left(None, now=11.0) is None
    assert meter().seconds_left(7.0, now=11.0) == 7.0
    assert meter(deadline=13.0).seconds_left(7.0, now=11.0) == 2.0
    assert meter(images=150).seconds_left(None, now=11.0) == pytest.approx(5.5)  # 100 images in 11 seconds
    assert meter(gpu_seconds=5.0).seconds_left(7.0, now=3.0) == 3.0
    assert meter(deadline=13.0).seconds_left(7.0, now=17.0) == 0.0


@pytest.mark.parametrize("keep", [1.0, 0.34])
def test_a_search_ends_with_its_images(tmp_path, keep):
    config = fakes.study_config(trials=None, rungs=(0.0, 0.25, 1.0), keep=keep)
    session = fakes.open_session(tmp_path, config, limits=Limits(images=20_000))
    fakes.run_here(session, rungs=(0.0, 0.25, 1.0))
    session.close()
    used = sum(outcome.rungs[-1].images for outcome in session.outcomes)

    assert 19_000 <= used <= 21_000
    assert len(session.outcomes) == 20 if keep == 1 else len(session.outcomes) > 30


def test_a_search_ends_with_its_gpu_hours(tmp_path):
    config = fakes.study_config(trials=None, rungs=(0.0, 0.25, 1.0), keep=0.34, gpus=0.5)
    session = fakes.open_session(tmp_path, config, limits=Limits(gpu_seconds=10.0))
    fakes.run_here(session, rungs=(0.0, 0.25, 1.0))
    session.close()
    used = 0.5 * sum(sum(outcome.seconds.values()) for outcome in session.outcomes)

    assert 9.0 <= used <= 10.5


@pytest.mark.parametrize("failing", [(), range(4, 150, 3)])
@pytest.mark.parametrize("keep", [1.0, 0.34])
def test_the_time_left_is_right_within_a_quarter_once_a_tenth_is_done(tmp_path, keep, failing):
    """Time here is what rungs say they took; one recipe after the other; of those all or two of three come that far."""
    config = fakes.study_config(trials=150, rungs=(0.0, 0.25, 1.0), keep=keep)
    session = fakes.open_session(tmp_path, config)
    told = []

    def passed():
        latest = {outcome.id: outcome for outcome in (*session.outcomes, *session.paused.waiting.values())}
        return sum(sum(outcome.seconds.values()) for outcome in latest.values())

    def tell():
        told.append((passed(), session.progress().eta))

    session.clock = fakes.Handed(passed)
    fakes.run_here(session, rungs=(0.0, 0.25, 1.0), trouble=dict.fromkeys(failing, "raise"), after=tell)
    session.close()
    whole = passed()
    late = [(at, eta) for at, eta in told if 0.1 <= at / whole <= 0.9]

    assert len(late) > 50
    assert all(abs(at + eta - whole) <= 0.25 * whole for at, eta in late)
