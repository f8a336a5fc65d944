"""Budgets by hand: what is used up, what still fits, how long it takes, when a front has stopped to grow."""

import fakes
import pytest

from autoprune.errors import InputError
from autoprune.search.options import BudgetOptions
from autoprune.search.overrides import with_budget
from autoprune.search.running.budget_meter import Spending
from autoprune.search.running.limits import Limits
from autoprune.search.running.plateau import on_plateau
from autoprune.search.running.time_estimates import TimeEstimates
from autoprune.study.config import Budget
from autoprune.study.outcome import Rung


def outcome(number, *rungs, control=False, accuracy=0.5, flops=0.5, images=1100, **rest):
    """Rungs as (share, images, seconds)."""
    measured = tuple(Rung(share=s, images=n, accuracy=0.5, seconds=t) for s, n, t in rungs)
    proposal = fakes.proposal(number, flops=flops, images=images, control=control)
    seconds = {"finetune": rungs[-1][2]} if rungs else {}
    return fakes.completed(proposal, accuracy, rungs=measured, seconds=seconds, **rest)


def test_what_is_spent_counts_every_recipe_once_and_those_that_run_as_if_they_had_ended():
    spent = Spending(gpus=0.5)
    spent.begin(1, 1100, 70.0)
    assert (spent.images(), spent.images(ahead=False), spent.gpu_seconds()) == (1100, 0, 35.0)
    spent.end(outcome(1, (0.0, 0, 3.0), (0.25, 275, 11.0)))
    assert (spent.images(), spent.gpu_seconds()) == (275, 5.5)
    spent.begin(1, 825, 31.0)
    assert (spent.images(), spent.gpu_seconds()) == (1100, 21.0)
    spent.end(outcome(1, (0.0, 0, 3.0), (0.25, 275, 11.0), (1.0, 1100, 41.0)))
    spent.end(outcome(2))
    assert (spent.images(), spent.gpu_seconds()) == (1100, 20.5)


def test_estimates_by_hand():
    estimates = TimeEstimates()
    assert (estimates.whole_trial(), estimates.images(), estimates.average_trial((0.0,), 0.5)) == (0.0, 0, None)
    estimates.learn(outcome(0, (0.0, 0, 20.0), (1.0, 1100, 240.0), control=True))  # 0.2 s an image
    assert estimates.whole_trial() == pytest.approx(240)
    estimates.learn(outcome(1, (0.0, 0, 3.0), (0.25, 275, 30.5), (1.0, 1100, 113.0)))  # 0.1 s an image
    estimates.learn(outcome(2, (0.0, 0, 5.0)))
    estimates.learn(outcome(0, (0.0, 0, 20.0), (1.0, 1100, 240.0), control=True))
    assert (estimates.until_training(), estimates.images(), estimates.training(7)) == (4.0, 1100, pytest.approx(0.7))
    assert estimates.whole_trial() == pytest.approx(4 + 110)
    assert estimates.average_trial((), 1.0) == pytest.approx(4 + 110)
    # a third goes on to a quarter, a ninth to the end
    assert estimates.average_trial((0.0, 0.25), 1 / 3) == pytest.approx(4 + 110 * (0.25 / 3 + 0.75 / 9))
    # all go on to a quarter, a third to the end
    assert estimates.average_trial((0.25,), 1 / 3) == pytest.approx(4 + 110 * (0.25 + 0.75 / 3))


def test_recipes_that_end_before_they_were_measured_are_expected_again():
    estimates = TimeEstimates()
    estimates.learn(outcome(1, (0.0, 0, 4.0), (1.0, 1100, 114.0)))
    estimates.learn(outcome(2, status="stopped", error="constraint", started=7.0, finished=12.0))
    estimates.learn(outcome(3, status="stopped", error="constraint", started=9.0, finished=10.0))
    assert estimates.average_trial((), 1.0) == pytest.approx((114 + 5 + 1) / 3)
    assert estimates.whole_trial() == pytest.approx(114)  # one that goes its whole way needs as much as before
    estimates.learn(outcome(4, (0.0, 0, 4.0)))
    estimates.learn(outcome(4, (0.0, 0, 4.0), (1.0, 1100, 114.0)))  # its second leg is no other recipe
    assert estimates.average_trial((), 1.0) == pytest.approx((2 * 114 + 5 + 1) / 4)


def test_a_stage_before_the_cut_is_paid_in_seconds_an_image():
    estimates = TimeEstimates()
    estimates.learn(outcome(1, (0.0, 550, 55.0), (1.0, 1100, 165.0)))
    assert estimates.until_training() == 0
    assert estimates.training(10) == pytest.approx((0.1 + 0.2) / 2 * 10)


def test_limits_of_the_other_budgets():
    limits = Limits.of(Budget(gpu_hours=0.5, images=77))
    assert (limits.gpu_seconds, limits.images, limits.deadline, limits.patience) == (1800, 77, None, None)
    assert limits.consumes
    assert not Limits.of(Budget(trials=7, until="hypervolume")).consumes
    assert Limits.of(Budget(until="hypervolume", patience=7)).patience == 7
    assert [Budget(patience=3).endless, Budget(images=1).endless, Budget(until="hypervolume").endless] == [1, 0, 0]


def test_a_plateau_is_a_front_that_has_stopped_to_grow():
    grow = [outcome(n, accuracy=0.1 * n, finished=float(n)) for n in range(1, 6)]
    still = [outcome(n, accuracy=0.5, finished=float(n)) for n in range(6, 9)]
    limits = Limits(patience=3, gain=0.01)

    assert not on_plateau(grow, limits)
    assert not on_plateau([*grow, *still[:2]], limits)
    assert on_plateau([*grow, *still], limits)
    assert not on_plateau([*grow, *still], Limits())
    assert not on_plateau(still, limits)  # too few to say


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


def test_a_search_ends_when_the_front_stops_to_grow(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=None), limits=Limits(patience=15, gain=0.05))
    fakes.run_here(session)
    session.close()

    assert 17 < len(session.outcomes) < 200
    assert on_plateau(session.outcomes, session.budget.limits)


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


def test_amounts_that_are_given_replace_all_of_the_space_and_until_is_added():
    config = fakes.study_config(trials=7)
    assert with_budget(config, BudgetOptions()).budget == Budget(trials=7)
    assert with_budget(config, BudgetOptions(minutes=3.0, until="hypervolume")).budget == Budget(
        minutes=3, until="hypervolume"
    )
    assert with_budget(config, BudgetOptions(until="hypervolume")).budget == Budget(trials=7, until="hypervolume")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (BudgetOptions(images=0), "images: 0 is out of range; allowed: above 0"),
        (BudgetOptions(gpu_hours=1.0), "budget.gpu_hours: trials use no GPU"),
        (BudgetOptions(until="doomsday"), "until: unknown end 'doomsday'"),
    ],
)
def test_budgets_that_cannot_be_counted_are_refused(given, what):
    with pytest.raises(InputError, match=what):
        with_budget(fakes.study_config(trials=7), given)


def test_a_search_needs_an_end():
    with pytest.raises(InputError, match="no end is given; allowed: trials, minutes, gpu_hours, images, until"):
        with_budget(fakes.study_config(trials=None), BudgetOptions())
