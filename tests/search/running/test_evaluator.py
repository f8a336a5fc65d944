"""Evaluator: whatever goes wrong in a trial becomes an outcome."""

import fakes
import pytest

from autoprune.search.running.evaluator import describe_error, run_safely
from autoprune.search.running.study_clock import StudyClock

CLOCK = StudyClock(0.0)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [("raise", "ValueError: a bad"), ("memory", "MemoryError"), ("nan", "the metric is nan")],
)
def test_trouble_is_a_failed_outcome_without_a_model(trouble, error):
    proposal = fakes.proposal(7, control=True)
    evaluation = run_safely(fakes.OpenFake(trouble={7: trouble})(CLOCK), proposal, lambda *_: True, CLOCK)
    outcome = evaluation.outcome

    assert (outcome.id, outcome.status, outcome.error, outcome.control) == (7, "failed", error, True)
    assert outcome.recipe == proposal.recipe
    assert 0 < outcome.started <= outcome.finished
    assert evaluation.files == {}


def test_a_trial_without_trouble_comes_back_as_it_is():
    evaluation = run_safely(fakes.OpenFake()(CLOCK), fakes.proposal(7), lambda *_: True, CLOCK)

    assert evaluation.outcome.completed
    assert evaluation.files == {"model.json": b"7"}


def test_a_stopped_trial_needs_no_accuracy():
    evaluation = run_safely(fakes.OpenFake()(CLOCK), fakes.proposal(7), lambda *_: False, CLOCK)

    assert (evaluation.outcome.status, evaluation.outcome.accuracy) == ("stopped", None)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("\n  first line \nsecond"), "ValueError: first line"),
        (KeyError(), "KeyError"),
        (OSError("x" * 400), "OSError: " + "x" * 291),
    ],
)
def test_an_error_in_one_short_line(error, text):
    assert describe_error(error) == text
