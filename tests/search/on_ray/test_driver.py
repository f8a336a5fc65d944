"""A session as Tune's searcher, callback and stopper, and Tune's order of trials; nothing here starts Ray."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import fakes
import pytest

from autoprune.search.on_ray.deaths import Death
from autoprune.search.on_ray.driver import (
    DispatcherCallback,
    DispatcherSearcher,
    DispatcherStopper,
    NewestFirst,
)
from autoprune.search.on_ray.room import Room
from autoprune.search.on_ray.settings import PUT_BACK
from autoprune.search.running.limits import CUT_OFF_SECONDS, Limits
from autoprune.search.running.segments import TrialSegment

FINISHED = DispatcherSearcher.FINISHED
ROOM = Room(lambda: 5)


@pytest.fixture
def session(tmp_path):
    return fakes.open_session(tmp_path, fakes.study_config(trials=3), limits=Limits(trials=3, deadline=1e6, grace=70.0))


def complete(searcher, trial_id):
    """Tune hears of the outcome of a trial that runs."""
    outcome = fakes.completed(searcher.running[trial_id].proposal)
    searcher.on_trial_complete(trial_id, {"outcome": outcome.to_json()})


def test_segments_are_suggested_until_the_budget_is_used_up(session):
    searcher = DispatcherSearcher(session, ROOM)
    suggested = {name: searcher.suggest(name) for name in "abc"}

    assert [TrialSegment.from_plain(plain).proposal.id for plain in suggested.values()] == [0, 1, 2]
    assert {plain["until"] for plain in suggested.values()} == {1e6 + 70}
    assert searcher.suggest("d") is None  # one of them may be lost with its worker
    for name in "abc":
        complete(searcher, name)
    assert searcher.suggest("d") == FINISHED
    assert [outcome.id for outcome in session.outcomes] == [0, 1, 2]
    assert searcher.running == {}


def test_while_trials_may_pause_there_may_be_more(tmp_path):
    config = fakes.study_config(trials=3, rungs=(0.0, 0.25, 1.0), keep=0.34)
    searcher = DispatcherSearcher(fakes.open_session(tmp_path, config), ROOM)
    for name in "abc":
        searcher.suggest(name)

    assert searcher.suggest("d") is None


def test_a_third_crash_of_what_was_handed_out_again_is_its_outcome(session, tmp_path):
    searcher = DispatcherSearcher(session, ROOM)
    (tmp_path / "error.txt").write_text("Traceback\nray.exceptions.ActorDiedError: it died\n")
    handed_out = []
    for name in "abc":
        assert session.outcomes == []
        handed_out.append(TrialSegment.from_plain(searcher.suggest(name)))
        searcher.on_trial_complete(name, error=True)
        for _ in range(2):  # Tune may say it twice
            trial = SimpleNamespace(trial_id=name, error_file=str(tmp_path / "error.txt"))
            DispatcherCallback(searcher).on_trial_error(trial=trial)

    assert handed_out == [handed_out[0]] * 3
    assert [(outcome.status, outcome.error) for outcome in session.outcomes] == [
        ("failed", "the worker process died 3 times: ActorDiedError: it died")
    ]


def test_what_runs_when_the_user_interrupts_is_not_lost(session):
    searcher = DispatcherSearcher(session, ROOM)
    searcher.suggest("a")
    session.interrupted = True
    searcher.end_crashed("a", Death("killed"))

    assert session.outcomes == []


def test_tune_may_pickle_what_holds_a_session(session):
    for adapter in (DispatcherSearcher(session, ROOM), DispatcherStopper(session)):
        assert pickle.loads(pickle.dumps(adapter)).__dict__ == {}


def test_everything_ends_when_the_user_says_so_or_nobody_listens(session):
    stopper = DispatcherStopper(session)
    assert not stopper.stop_all()
    session.interrupted = True
    assert stopper.stop_all()
    session.interrupted = False
    session.budget.limits = Limits(deadline=0.0, grace=-CUT_OFF_SECONDS)
    assert stopper.stop_all()
    assert not stopper("a", {})


def test_a_free_actor_goes_to_the_newest_waiting_trial():
    trials = [SimpleNamespace(number=n, status=status) for n, status in enumerate(["PENDING", "PENDING", "RUNNING"])]
    controller = SimpleNamespace(get_trials=lambda: trials)

    assert NewestFirst().choose_trial_to_run(controller).number == 1
    assert NewestFirst().choose_trial_to_run(SimpleNamespace(get_trials=lambda: trials[2:])) is None


def test_a_segment_whose_worker_was_taken_away_goes_on_elsewhere(session):
    searcher = DispatcherSearcher(session, ROOM)
    first = TrialSegment.from_plain(searcher.suggest("a"))
    searcher.on_trial_complete("a", {PUT_BACK: True})
    again = TrialSegment.from_plain(searcher.suggest("b"))

    assert again == replace(first, resumed=True)
    assert list(searcher.running) == ["b"]
    assert session.outcomes == []


def test_as_many_run_as_there_is_room_for_and_more_when_a_node_joins(session):
    places = [2]
    searcher = DispatcherSearcher(session, SimpleNamespace(now=lambda: places[0]))
    for name in "ab":
        searcher.suggest(name)
    full = searcher.suggest("c")
    places[0] = 3

    assert full is None
    assert TrialSegment.from_plain(searcher.suggest("c")).proposal.id == 2
