"""Cascade: who goes on, by hand; and a whole search in which recipes pause, in process and after a kill."""

import shutil
from dataclasses import replace

import fakes
import numpy as np
import pytest

from autoprune.errors import InputError
from autoprune.search.running import in_process
from autoprune.search.running.halving import SuccessiveHalving, pausing_shares
from autoprune.search.running.limits import Limits
from autoprune.search.running.progress import SearchInterrupted
from autoprune.study.folder import load_study
from autoprune.study.pareto import front, ranked
from autoprune.study.space import Space

RUNGS = (0.0, 0.25, 1.0)


def run(session, **options):
    evaluator = fakes.OpenFake(rungs=(0.0, 0.25), **options)(session.clock)
    in_process.run(session, evaluator, trial_timeout=60.0)


# ---- ranking ---------------------------------------------------------------------------------------------------------


def test_ranking_goes_front_by_front_and_in_each_from_the_most_isolated():
    points = [[3, 3], [1, 7], [2, 4], [7, 1], [3, 2], [2, 5], [8, 8], [np.nan, 0]]
    # front 0: 1 (1,7), 2 (2,4), 4 (3,2), 3 (7,1); spans 6 and 6: 2 has (3-1)/6 + (7-2)/6 = 7/6, 4 has 5/6 + 3/6 = 8/6
    assert ranked(points).tolist() == [1, 3, 4, 2, 0, 5, 6, 7]
    assert ranked(np.zeros((0, 2))).tolist() == []
    assert ranked([[1, 1], [1, 1], [1, 1]]).tolist() == [0, 2, 1]


def test_ranking_is_a_permutation_and_never_puts_a_point_before_one_that_dominates_it():
    points = np.random.default_rng(3).integers(0, 9, (101, 3)).astype(float)
    order = ranked(points)

    assert sorted(order) == list(range(101))
    place = np.argsort(order)
    for one in range(101):
        worse = (points[one] <= points).all(1) & (points[one] < points).any(1)
        assert (place[one] < place[worse]).all()


# ---- the rule --------------------------------------------------------------------------------------------------------


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


# ---- a search --------------------------------------------------------------------------------------------------------


def test_a_search_stops_most_recipes_and_completes_the_best(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=38, rungs=RUNGS, keep=0.34))
    run(session)
    session.close()
    study = load_study(tmp_path)
    searched = [outcome for outcome in study.outcomes if not outcome.control]
    by_length = [sum(len(o.rungs) >= n for o in searched) for n in (1, 2)]
    completed = [outcome for outcome in searched if outcome.completed]

    assert len(study.outcomes) == 38
    assert {outcome.status for outcome in searched} == {"completed", "stopped"}
    assert by_length[0] == 36
    assert 36 // 3 <= by_length[1] <= 18
    assert by_length[1] // 3 <= len(completed) <= by_length[1] // 2 + 1
    assert all(outcome.error is None and outcome.accuracy is None for outcome in searched if not outcome.completed)
    assert all(member.completed for member in front(study.outcomes))
    assert list(session.folder.states.iterdir()) == []
    assert session.progress().paused == 0


def test_without_controls_every_recipe_is_searched(tmp_path):
    config = replace(fakes.study_config(trials=9), controls=False)
    session = fakes.open_session(tmp_path, config)
    run(session)
    session.close()

    assert not any(outcome.control for outcome in session.outcomes)
    assert len(session.proposer.optuna_study.trials) == 9


def test_a_stopped_recipe_is_never_told_as_complete(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=20, rungs=RUNGS, keep=0.34))
    run(session)
    session.close()
    states = [trial.state.name for trial in session.proposer.optuna_study.get_trials()]
    known = [outcome for outcome in session.outcomes if outcome.completed and not outcome.control]

    assert states.count("COMPLETE") == len(known)
    assert states.count("PRUNED") == sum(outcome.status == "stopped" for outcome in session.outcomes)


def test_a_search_that_was_interrupted_goes_on_with_those_that_wait(tmp_path):
    whole = fakes.open_session(tmp_path / "whole", fakes.study_config(trials=30, rungs=RUNGS, keep=0.34))
    run(whole)
    whole.close()

    config = fakes.study_config(trials=30, rungs=RUNGS, keep=0.34)
    for legs in (7, 11, 5, 1000):
        session = fakes.open_session(tmp_path / "parts", config)
        stop_after(session, legs)
        run(session)
        if session.interrupted:
            with pytest.raises(SearchInterrupted):
                session.close()
        else:
            session.close()
    one, two = (load_study(tmp_path / name) for name in ("whole", "parts"))

    assert [p.recipe for p in one.proposals] == [p.recipe for p in two.proposals]
    assert {o.id: (o.status, o.accuracy, len(o.rungs)) for o in one.outcomes} == {
        o.id: (o.status, o.accuracy, len(o.rungs)) for o in two.outcomes
    }


def stop_after(session, legs):
    """Interrupt the session when that many legs have ended."""
    end_segment = session.end_segment

    def count(outcome):
        nonlocal legs
        end_segment(outcome)
        legs -= 1
        session.interrupted = legs == 0

    session.end_segment = count


def test_what_waits_without_its_files_begins_anew(tmp_path):
    config = fakes.study_config(trials=12, rungs=RUNGS, keep=0.34)
    session = fakes.open_session(tmp_path, config)
    stop_after(session, 8)
    run(session)
    waited = set(session.paused.waiting)
    assert waited
    shutil.rmtree(session.folder.states)
    session = fakes.open_session(tmp_path, config)
    run(session)
    session.close()

    assert session.proposer.waiting == 0
    assert {outcome.id for outcome in session.outcomes} == set(range(12))


def test_in_the_end_what_waits_gets_the_time_that_new_recipes_cannot_use(tmp_path):
    """A new recipe takes 1.1 + seconds and has no time left; a paused one needs less and goes to its end."""
    config = fakes.study_config(trials=8, rungs=RUNGS, keep=0.2)
    session = fakes.open_session(tmp_path, config, limits=Limits(trials=8, deadline=1e6))
    run(session)
    session.close()

    assert all(outcome.completed for outcome in session.outcomes)  # there is all the time in the world


def test_nothing_goes_on_that_cannot_come_to_its_end(tmp_path):
    config = fakes.study_config(trials=8, rungs=RUNGS, keep=0.2)
    session = fakes.open_session(tmp_path, config)
    stop_after(session, 9)
    run(session)
    session.interrupted = False
    waiting = len(session.paused.waiting)
    session.budget.limits = Limits(deadline=session.clock.now() + 0.5)  # the rest of any recipe takes 0.75 s and more

    assert waiting
    assert session.next() is None
    assert session.finished_handing_out()
