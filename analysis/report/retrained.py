"""A study in which finalists stand for the members that they train again."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace

from autoprune.study import finalists
from autoprune.study.finalists import Finalist
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

_COSTS = (
    "flops_ratio",
    "params_ratio",
    "activations_ratio",
    "latency_ratio",
    "latency_ms",
    "latency_low",
    "latency_high",
)


def with_finalists(study: Study) -> Study:
    """The study as it is after its members were trained again; the same one if none were.

    A member has the mean over seeds of metric and costs, and the widths of the run whose model is kept. What the search
    saw on the way, its rungs, stays as it was: for how the search went, look at the study itself.
    """
    found = {one.member: one for one in finalists.by_member(study.finalists, study.metric)}
    if not found:
        return study
    outcomes = [_as_retrained(one, found[one.id]) if one.id in found else one for one in study.outcomes]
    return replace(study, outcomes=tuple(outcomes))


def _as_retrained(outcome: Outcome, found: Finalist) -> Outcome:
    costs = {name: _mean(getattr(run, name) for run in found.runs) for name in _COSTS}
    return replace(outcome, metric=found.validation.mean, widths=found.best.widths, **costs)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
