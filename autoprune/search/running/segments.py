"""Trial segments: a trial is run in one piece or, where it pauses at rungs, in several, each by any worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoprune.search.running.evaluator import Evaluation, Evaluator, Report, run_safely
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.outcome import Proposal, Rung, RunInterval


@dataclass(frozen=True, kw_only=True)
class TrialSegment:
    """The part of a trial that one worker runs, from the trial's start or from the rung where it paused.

    Fields:
        until: the rung at which it pauses, as a share of the training images; 1 = nowhere.
        resumed: it goes on from what is in `states/<id>`.
    """

    proposal: Proposal
    until: float = 1.0
    resumed: bool = False

    @property
    def parent(self) -> int | None:
        """The trial whose model the worker needs."""
        return None if self.proposal.ancestors else self.proposal.recipe.parent

    def to_plain(self) -> dict[str, Any]:
        """What a worker is sent; `TrialSegment.from_plain(segment.to_plain()) == segment`."""
        return {"proposal": self.proposal.to_json(), "pause": self.until, "resumed": self.resumed}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> TrialSegment:
        """The inverse of `to_plain`; other keys are left alone."""
        proposal = Proposal.from_json(data["proposal"])
        return cls(proposal=proposal, until=data["pause"], resumed=data["resumed"])


def run_segment(
    evaluator: Evaluator,
    segment: TrialSegment,
    report: Report,
    clock: StudyClock,
    scratch: Path,
    parent: Path | None = None,
    worker: str = "",
    *,
    keep_state: bool = False,
) -> Evaluation:
    """Run one segment; a trial that comes as far as the rung where its segment ends has the status `paused`.

    Args:
        report: hears of every rung; False = stop for good, as the time is over.
        scratch: holds the files of `states/<id>` if the segment is resumed, else nothing. Without these a resumed
            trial begins anew, as one of its notes says.
        parent: folder with the model of `segment.parent`, if it has one.
        worker: name of the process that runs it.
        keep_state: `scratch` is filled also where the trial cannot pause at a rung, as its process may be taken away.
    """
    paused = False

    def report_or_pause(rung: Rung, ratios: Mapping[str, float]) -> bool:
        nonlocal paused
        goes_on = report(rung, ratios)
        paused = goes_on and rung.comparable and segment.until <= rung.share < 1
        return goes_on and not paused

    may_pause, began = segment.resumed or segment.until < 1, clock.now()
    anew = segment.resumed and not any(scratch.iterdir())
    kept = scratch if may_pause or keep_state else None
    evaluation = run_safely(evaluator, segment.proposal, report_or_pause, clock, kept, parent)
    interval = RunInterval(worker=worker, started=began, finished=clock.now())
    outcome = replace(evaluation.outcome, worker=worker, legs=(interval,))
    if anew:
        outcome = replace(outcome, notes={**outcome.notes, "began_anew": "what it went on from was damaged"})
    if outcome.status == "stopped" and paused:
        outcome = replace(outcome, status="paused")
    elif outcome.status == "stopped":  # without an error it would say that the trial lost a comparison
        outcome = replace(outcome, error=outcome.error or "its time was over")
    return replace(evaluation, outcome=outcome)
