"""A trial that ran out of memory is tried once more with half the images a pass; no other failure is."""

from dataclasses import dataclass, field, replace

import fakes
import pytest

from autoprune.search.running.evaluator import Evaluation, failed_outcome
from autoprune.search.running.second_try import ran_out_of_memory, run_twice_if_out_of_memory
from autoprune.search.running.segments import TrialSegment
from autoprune.study.outcome import RunInterval

TORCH = "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"


@dataclass
class Card:
    """Has memory for so many images a pass; every run takes a second."""

    images: int
    error: str = "OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB"
    runs: list = field(default_factory=list)

    def __call__(self, segment):
        start = float(len(self.runs))
        self.runs.append(segment)
        training = segment.proposal.recipe.training
        done = fakes.completed(segment.proposal, started=start, finished=start + 1)
        if training.batch_size // training.accumulate > self.images:
            done = failed_outcome(segment.proposal, self.error, started=start, finished=start + 1)
        interval = RunInterval(worker="node:1", started=start, finished=start + 1)
        return Evaluation(outcome=replace(done, legs=(interval,)))


def segment_of(batch, accumulate=1):
    proposal = fakes.proposal(5)
    training = replace(proposal.recipe.training, batch_size=batch, accumulate=accumulate)
    proposal = replace(proposal, recipe=replace(proposal.recipe, training=training))
    return TrialSegment(proposal=proposal, until=0.5, resumed=True)


def test_the_second_try_begins_anew_with_half_the_images_a_pass():
    card = Card(images=60)
    outcome = run_twice_if_out_of_memory(segment_of(100), card).outcome
    first, second = card.runs

    assert (second.until, second.resumed, second.proposal.id) == (0.5, False, 5)
    training = replace(first.proposal.recipe.training, accumulate=2)
    assert second.proposal.recipe == replace(first.proposal.recipe, training=training)
    assert outcome.completed
    assert outcome.recipe == second.proposal.recipe
    assert (outcome.started, outcome.finished) == (0.0, 2.0)
    assert [(leg.started, leg.finished) for leg in outcome.legs] == [(0.0, 1.0), (1.0, 2.0)]


def test_a_third_try_there_is_not():
    card = Card(images=49, error="MemoryError")
    outcome = run_twice_if_out_of_memory(segment_of(100), card).outcome

    assert len(card.runs) == 2
    assert (outcome.status, outcome.error) == ("failed", "MemoryError; with the batch in 2 passes: MemoryError")


def test_passes_that_the_recipe_has_are_doubled():
    card = Card(images=10)
    outcome = run_twice_if_out_of_memory(segment_of(90, accumulate=5), card).outcome

    assert outcome.completed
    assert outcome.recipe.training.accumulate == 10


@pytest.mark.parametrize(
    ("batch", "accumulate", "error"), [(3, 2, "MemoryError"), (100, 1, "ValueError: no memory of it")]
)
def test_where_halves_do_not_help_one_try_is_all(batch, accumulate, error):
    card = Card(images=0, error=error)
    outcome = run_twice_if_out_of_memory(segment_of(batch, accumulate), card).outcome

    assert (len(card.runs), outcome.error) == (1, error)


@pytest.mark.parametrize(
    "error", ["OutOfMemoryError: CUDA", "MemoryError", TORCH, "RuntimeError: CUDA error: out of memory"]
)
def test_the_errors_of_too_little_memory(error):
    assert ran_out_of_memory(error)


@pytest.mark.parametrize("error", [None, "", "ValueError: MemoryError", "OSError: no space left on device"])
def test_other_errors(error):
    assert not ran_out_of_memory(error)
