"""How long the models of a front take, timed once more when a search has ended and nothing else of it runs.

A trial is timed while others run beside it, or not at all where latency is neither an objective nor a constraint. What
is read of a study has the later, better numbers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoprune.schema import read, to_plain, within
from autoprune.study.log import parse_line, read_lines
from autoprune.study.outcome import Outcome

#: Why a member could not be timed that came onto the front only by the times of others: then its model is gone.
NOT_KEPT = "its model was not kept"

#: A model takes as long as the dense one, or longer, if its interval says so of all that it may take.
AS_LONG = 1.0


@dataclass(frozen=True, kw_only=True)
class FrontTiming:
    """What one model takes; one JSON line of `timings.jsonl`.

    Fields:
        trial: its number.
        ms, ratio, low, high: see `timing.pairs.Timing`.
        how: runtime, type, batch and device, for people.
        error: why it could not be timed; empty if it was.
    """

    trial: int = field(metadata=within(0, 2**53))
    ms: float = field(default=0.0, metadata=within(0, 10**12))
    ratio: float = field(default=0.0, metadata=within(0, 10**9))
    low: float = field(default=0.0, metadata=within(0, 10**9))
    high: float = field(default=0.0, metadata=within(0, 10**9))
    how: str = ""
    error: str = ""

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        return json.dumps(to_plain(self), allow_nan=False)


def read_timings(file: Path) -> dict[int, FrontTiming]:
    """Trial -> what was measured of it last; raises `InputError` for a line that is none."""
    found = (read(FrontTiming, parse_line(line, f"{file}:{n}"), f"{file}:{n}") for n, line in read_lines(file))
    return {timing.trial: timing for timing in found}


def with_timings(outcomes: Iterable[Outcome], timings: Mapping[int, FrontTiming]) -> tuple[Outcome, ...]:
    """The outcomes with the latencies that were measured last."""
    return tuple(_with_timing(outcome, timings.get(outcome.id)) for outcome in outcomes)


def with_times_of_members(finalists: Iterable[Outcome], outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Finalists with the latencies of their members, where these have the same widths and they were not timed."""
    searched = {outcome.id: outcome for outcome in outcomes if outcome.latency_ratio is not None}
    return tuple(_with_time_of(one, searched.get(-1 if one.member is None else one.member)) for one in finalists)


def _with_time_of(finalist: Outcome, member: Outcome | None) -> Outcome:
    if member is None or finalist.latency_ratio is not None or finalist.widths != member.widths:
        return finalist
    names = ("latency_ms", "latency_ratio", "latency_low", "latency_high")
    return dataclasses.replace(finalist, **{name: getattr(member, name) for name in names})


def _with_timing(outcome: Outcome, timing: FrontTiming | None) -> Outcome:
    if timing is not None and timing.error == NOT_KEPT:  # nothing is known of it that compares with the others
        return dataclasses.replace(outcome, latency_ms=None, latency_ratio=None, latency_low=None, latency_high=None)
    if timing is None or timing.error:
        return outcome
    return dataclasses.replace(
        outcome,
        latency_ms=timing.ms,
        latency_ratio=timing.ratio,
        latency_low=timing.low,
        latency_high=timing.high,
    )


def slower_than_hoped(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Models that cost fewer FLOPs than the dense one and, as far as the interval tells, no less time."""
    return [one for one in outcomes if is_as_slow(one.flops_ratio, one.latency_ratio, one.latency_high)]


def is_as_slow(flops: float | None, latency: float | None, high: float | None) -> bool:
    """Whether FLOPs fell and time may not have; all relative to the dense model, None = not known.

    Args:
        high: upper end of the latency's interval.
    """
    if latency is None or flops is None:
        return False
    return flops < AS_LONG <= (latency if high is None else high)


def time_in_words(outcome: Outcome) -> str:
    """`1.08 of the dense model's time (1.02 to 1.15)`; empty where it was not measured."""
    if outcome.latency_ratio is None:
        return ""
    low, high = outcome.latency_low, outcome.latency_high
    interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return f"{outcome.latency_ratio:.2f} of the dense model's time{interval}"
