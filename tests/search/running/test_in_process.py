"""The loop in one process, and its executor: time-outs, deadlines, signals."""

import os
import signal
import socket

import fakes
import pytest

from autoprune.errors import SearchInterrupted
from autoprune.search.running import in_process
from autoprune.search.running.limits import Limits
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.folder import load_study


def kept(session):
    return {int(path.name) for path in session.folder.models.iterdir()}


def test_the_deadline_ends_handing_out_and_the_grace_stops_what_runs(tmp_path):
    limits = Limits(deadline=1000.0, grace=100.0)
    session = fakes.open_session(tmp_path, fakes.study_config(trials=9), limits=limits)

    class Slow(fakes.Fake):
        def run(self, proposal, report, scratch, parent):
            if proposal.id == 2:
                session.clock = StudyClock(session.clock.origin - 1050)
            if proposal.id == 3:
                session.clock = StudyClock(session.clock.origin - 1050)
            return super().run(proposal, report, scratch, parent)

    in_process.run(session, Slow(session.clock, 0.0, None), trial_timeout=1e4)

    assert [outcome.status for outcome in session.outcomes] == ["completed"] * 3
    session.budget.limits = Limits(deadline=2000.0, grace=100.0)
    in_process.run(session, Slow(session.clock, 0.0, None), trial_timeout=1e4)
    assert [outcome.status for outcome in session.outcomes] == ["completed"] * 3 + ["stopped"]
    assert kept(session) <= {0, 1, 2}


def test_the_logs_say_which_process_of_which_machine_ran_a_trial(tmp_path):
    fakes.run_here(fakes.open_session(tmp_path, fakes.study_config(trials=1)))
    (outcome,) = load_study(tmp_path).outcomes

    assert outcome.worker == outcome.legs[0].worker == f"{socket.gethostname()}:{os.getpid()}"


def test_a_slow_trial_is_stopped_at_its_next_rung(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=1))
    fakes.run_here(session, seconds=0.05, timeout=0.01)

    assert session.outcomes[0].status == "stopped"


@pytest.fixture
def ctrl_c_interrupts():
    """As in a terminal, also where the tests run in a shell's background, in which SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_keeps_what_it_has_and_says_how_to_go_on(tmp_path, number):
    class Interrupting(fakes.Fake):
        def run(self, proposal, report, scratch, parent):
            if proposal.id == 3:
                os.kill(os.getpid(), number)
            return super().run(proposal, report, scratch, parent)

    session = fakes.open_session(tmp_path, fakes.study_config(trials=9))
    in_process.run(session, Interrupting(session.clock, 0.0, None), trial_timeout=60.0)

    with pytest.raises(SearchInterrupted, match=f"3 outcomes kept; go on with `autoprune resume {tmp_path}`"):
        session.close()
    assert [proposal.id for proposal in load_study(tmp_path).unfinished()] == [3]


def test_the_executor_opens_one_evaluator_with_the_study_clock_and_cache(tmp_path):
    session, opened = fakes.open_session(tmp_path, fakes.study_config(trials=5)), []

    def open_fake(clock, store):
        opened.append((clock, store.folder))
        return fakes.OpenFake()(clock)

    with in_process.InProcessExecutor() as executor:
        executor.wait_until_ready()
        executor.run(session, open_fake)

    assert opened == [(session.clock, session.folder.shared)]
    assert len(session.outcomes) == 5


def test_the_executor_stops_a_trial_after_the_minutes_of_the_configuration(tmp_path):
    session = fakes.open_session(tmp_path, fakes.study_config(trials=1, timeout=0.01 / 60))
    with in_process.InProcessExecutor() as executor:
        executor.run(session, fakes.OpenFake(seconds=0.05))

    assert session.outcomes[0].status == "stopped"
