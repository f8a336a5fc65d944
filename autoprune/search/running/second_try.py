"""A second try of a trial that ran out of memory: its batch goes through the model in twice as many passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autoprune.search.running.evaluator import Evaluation
from autoprune.search.running.segments import TrialSegment
from autoprune.study.outcome import Outcome

#: What errors begin with, or hold, where memory ran out: torch's on a GPU, Python's and NumPy's, torch's on the CPU.
_KINDS = ("OutOfMemoryError:", "MemoryError", "_ArrayMemoryError:")
_WORDS = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

#: Runs a segment.
Run = Callable[[TrialSegment], Evaluation]


def run_twice_if_out_of_memory(segment: TrialSegment, run: Run) -> Evaluation:
    """Run a segment, and if there was not enough memory for it, the trial from its start with half the images a pass.

    The outcome of the second try tells the recipe that ran, with its `accumulate`, and both run intervals; if it failed
    too, it tells both errors.
    """
    first = run(segment)
    smaller = with_smaller_passes(segment, first.outcome)
    if smaller is None:
        return first
    second = run(smaller)
    return replace(second, outcome=_together(first.outcome, second.outcome))


def with_smaller_passes(segment: TrialSegment, outcome: Outcome) -> TrialSegment | None:
    """The trial of the segment from its start, in passes half as large.

    None if memory was not what it failed for, or a pass cannot be halved.
    """
    recipe = segment.proposal.recipe
    passes = 2 * recipe.training.accumulate
    if outcome.status != "failed" or not ran_out_of_memory(outcome.error) or passes > recipe.training.batch_size:
        return None
    training = replace(recipe.training, accumulate=passes)
    proposal = replace(segment.proposal, recipe=replace(recipe, training=training))
    return replace(segment, proposal=proposal, resumed=False)


def ran_out_of_memory(error: str | None) -> bool:
    """Whether the error of a trial says that there was not enough memory."""
    return error is not None and (error.startswith(_KINDS) or any(words in error for words in _WORDS))


def _together(first: Outcome, second: Outcome) -> Outcome:
    error = second.error
    if second.status == "failed":
        passes = second.recipe.training.accumulate
        error = f"{first.error}; with the batch in {passes} passes: {second.error}"
    return replace(second, started=first.started, legs=(*first.legs, *second.legs), error=error)
