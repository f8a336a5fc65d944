"""What the models of a front take beside the dense one: a sentence that warns where FLOPs fell and time did not."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.analysis.report.words import plural
from autoprune.study.folder import Study
from autoprune.study.front_timings import slower_than_hoped, time_in_words
from autoprune.study.outcome import Outcome

#: Models that are named one by one.
NAMED = 3
ADVICE = "Widths that are fast, `round_to: auto` in the allocation, are the usual remedy."


def time_fact(study: Study) -> str:
    """What is known of the times of the front's models; empty where none was timed.

    Args:
        study: with finalists in the place of members, or as the search left it.
    """
    timed = [member for member in study.front if member.latency_ratio is not None]
    if not timed:
        return _why_not(study)
    slow = slower_than_hoped(timed)
    if slow:
        return f"FLOPs fell and time may not have: {_named(slow)}{_how(study)}. {ADVICE}"
    ratios = sorted(member.latency_ratio or 0.0 for member in timed)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if len(ratios) > 1 else f"{ratios[0]:.2f}"
    return f"Models of the front take {spread} of the dense model's time{_how(study)}."


def _named(slow: Sequence[Outcome]) -> str:
    names = [f"trial {outcome.id} takes {time_in_words(outcome)}" for outcome in slow[:NAMED]]
    more = [f"{plural(len(slow) - NAMED, 'other model')} of the front as long"] if len(slow) > NAMED else []
    return ", ".join([*names, *more])


def _how(study: Study) -> str:
    """How times were measured when the search had ended; empty of a search that has not."""
    found = {timing.how for timing in study.timings.values() if timing.how}
    return f" ({'; '.join(sorted(found))})" if found else ""


def _why_not(study: Study) -> str:
    errors = [timing.error for timing in study.timings.values() if timing.error]
    return f"The models of the front could not be timed: {errors[0]}." if errors else ""
