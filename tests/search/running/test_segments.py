"""Trial segments: what is sent to a worker, and how a segment ends."""

from pathlib import Path

import fakes
import pytest

from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.search.running.study_clock import StudyClock

CLOCK = StudyClock(0.0)
RUNGS = (0.0, 0.25, 1.0)


def run(segment, scratch, *, goes_on=lambda rung: True, **options):
    """The outcome of a segment, and the shares of the rungs that were reported."""
    reported = []

    def report(rung, _ratios):
        reported.append(rung.share)
        return goes_on(rung)

    evaluator = fakes.OpenFake(rungs=RUNGS, **options)(CLOCK)
    return run_segment(evaluator, segment, report, CLOCK, Path(scratch), worker="here:7").outcome, reported


@pytest.mark.parametrize("more", [{}, {"until": 0.25, "resumed": True}])
def test_a_segment_comes_back_from_plain_data(more):
    segment = TrialSegment(proposal=fakes.proposal(3, flops=0.25), **more)

    assert TrialSegment.from_plain({**segment.to_plain(), "until": 11.0}) == segment


def test_a_trial_pauses_at_the_rung_of_its_segment_and_goes_on_from_there(tmp_path):
    proposal = fakes.proposal(3)
    first, reported = run(TrialSegment(proposal=proposal, until=0.25), tmp_path)
    assert (first.status, first.error, reported) == ("paused", None, [0.0, 0.25])
    assert [rung.share for rung in first.rungs] == [0.0, 0.25]

    last, reported = run(TrialSegment(proposal=proposal, resumed=True), tmp_path)
    assert (last.status, reported) == ("completed", [1.0])


def test_an_outcome_says_which_worker_ran_it_and_when(tmp_path):
    before = CLOCK.now()
    outcome, _ = run(TrialSegment(proposal=fakes.proposal(3)), tmp_path)
    (interval,) = outcome.legs

    assert outcome.worker == interval.worker == "here:7"
    assert before <= interval.started <= interval.finished <= CLOCK.now()


def test_a_trial_that_is_stopped_did_not_lose_a_comparison(tmp_path):
    outcome, _ = run(TrialSegment(proposal=fakes.proposal(3)), tmp_path, goes_on=lambda rung: rung.share < 0.25)

    assert (outcome.status, outcome.error) == ("stopped", "its time was over")


def test_a_trial_that_is_stopped_at_its_last_rung_does_not_pause(tmp_path):
    segment = TrialSegment(proposal=fakes.proposal(3), until=0.25)
    outcome, _ = run(segment, tmp_path, goes_on=lambda rung: rung.share < 0.25)

    assert outcome.status == "stopped"


def test_a_trial_that_never_pauses_leaves_nothing_behind(tmp_path):
    outcome, _ = run(TrialSegment(proposal=fakes.proposal(3)), tmp_path)

    assert outcome.completed
    assert list(tmp_path.iterdir()) == []


def test_a_trial_that_may_be_taken_away_leaves_what_it_goes_on_from(tmp_path):
    evaluator, segment = fakes.OpenFake(rungs=RUNGS)(CLOCK), TrialSegment(proposal=fakes.proposal(3))
    run_segment(evaluator, segment, lambda *_rung: True, CLOCK, tmp_path, keep_state=True)

    assert (tmp_path / "deep" / "state").exists()


def test_a_trial_whose_state_was_damaged_begins_anew_and_says_so(tmp_path):
    segment = TrialSegment(proposal=fakes.proposal(3), resumed=True)
    outcome, reported = run(segment, tmp_path)

    assert (outcome.status, reported) == ("completed", [0.0, 0.25, 1.0])
    assert outcome.notes == {"began_anew": "what it went on from was damaged"}
