"""One trial: prepare, sparsify, score, cut, recalibrate, fine-tune, evaluate; each timed. No Ray, no Optuna.

A trial that fails (an exception, a loss that is not finite, no memory) is an Outcome with its error, not an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.errors import AutopruneError
from autoprune.recipe import Recipe
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.outcome import BROKEN, Outcome, Rung
from autoprune.tasks import Task
from autoprune.trial import checkpoint
from autoprune.trial.progress import Report, _Job, _Progress
from autoprune.trial.shared import Bench
from autoprune.trial.stages import _ConstraintError, _stages


@dataclass(frozen=True, eq=False)
class Trial:
    """A finished trial: its outcome and, if it completed, the pruned model, what was kept, and of which graph."""

    outcome: Outcome
    model: nn.Module | None = None
    keep: Keep | None = None
    graph: ChannelGraph | None = None


def run_trial(recipe: Recipe, task: Task, report: Report | None = None) -> Outcome:
    """Run one recipe on a task and return what it gave; see `run` for trials that share work."""
    return run(recipe, Bench(task), report).outcome


def run(
    recipe: Recipe,
    bench: Bench,
    report: Report | None = None,
    *,
    id: int = 0,  # noqa: A002 - the field of Outcome has this name
    control: bool = False,
    clock: Callable[[], float] | None = None,
    scratch: Path | None = None,
    final: bool = False,
    constraints: Constraints | None = None,
    latency: Latency | None = None,
) -> Trial:
    """Run one recipe; never raises for a failing recipe.

    Args:
        recipe: what to do.
        bench: what it shares with other trials.
        report: hears of every rung and may end the trial.
        id: copied into the outcome.
        control: copied into the outcome.
        clock: seconds since the study began; default: since the trial began.
        scratch: folder for what the trial may go on from; with it, a trial that is run again, on this or another
            machine, goes on where it was interrupted or stopped. Rungs before that are not reported again.
        final: once it has ended, the model is also measured on the test split.
        constraints: what the pruned model may not exceed; if it does, the trial ends right after the cut with status
            `stopped`, and the error says by which constraint. The dense model may exceed them all.
        latency: how the pruned model is timed, right after the cut; None = not at all.
    """
    progress = _Progress()
    now = clock or progress.elapsed
    past, started = checkpoint.load_past(scratch), now()
    if past is not None:
        progress.take_over(past)
        started = past.started
    limits = constraints or Constraints()
    job = _Job(recipe, bench, report or _go_on, scratch, progress, started, limits, latency)
    model, error = None, None
    try:
        model = _stages(job)
        if final and not progress.stopped:
            job.test(model)
        if scratch is not None:
            checkpoint.save_past(scratch, job.past())  # once more: the stage that a rung ended is timed only now
    except _ConstraintError as broken:
        progress.broken = f"{BROKEN}{broken}"
    except Exception as failure:  # noqa: BLE001 - a failing recipe is data: the search learns from it and goes on
        error = _one_line(failure)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    outcome = replace(_outcome(recipe, progress, error), id=id, control=control, started=started, finished=now())
    return Trial(outcome, model if outcome.completed else None, progress.keep, progress.graph)


def _go_on(_rung: Rung, _ratios: dict[str, float]) -> bool:
    return True


def _outcome(recipe: Recipe, progress: _Progress, error: str | None) -> Outcome:
    status = "failed" if error else "stopped" if progress.stopped or progress.broken else "completed"
    ratios: dict[str, Any] = {f"{name}_ratio": value for name, value in progress.ratios.items()}
    return Outcome(
        id=0,
        recipe=recipe,
        status=status,
        accuracy=progress.rungs[-1].accuracy if status == "completed" else None,
        rungs=tuple(progress.rungs),
        widths=progress.keep.widths(progress.graph) if progress.keep is not None and progress.graph is not None else {},
        seconds=progress.seconds,
        notes=progress.notes,
        seed=recipe.seed,
        error=error or progress.broken or None,
        latency_ms=progress.latency_ms,
        test_accuracy=progress.tested if status == "completed" else None,
        **ratios,
    )


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, AutopruneError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]
