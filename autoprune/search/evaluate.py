"""Evaluator: the seam between a search and what it searches over. The real one runs recipes on a task's bench."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autoprune.results import Outcome, Proposal, Rung

if TYPE_CHECKING:
    from autoprune.train import Runtime
    from autoprune.trial import Bench


@dataclass(frozen=True)
class StudyClock:
    """Seconds since the study began, the same in every process; time between a crash and the resume does not count."""

    origin: float

    def now(self) -> float:
        """Seconds since the study began."""
        return time.time() - self.origin


#: Called at every rung with the cost ratios; False = stop now.
Report = Callable[[Rung, Mapping[str, float]], bool]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What became of a recipe: its outcome and, if it completed, the files of the pruned model by name."""

    outcome: Outcome
    files: Mapping[str, bytes] = field(default_factory=dict)


class Evaluator(Protocol):
    """Runs recipes, one after the other, in one process."""

    def run(self, proposal: Proposal, report: Report) -> Evaluation:
        """Run one recipe to its end; a recipe that fails is an outcome with status `failed`."""


def run_safely(evaluator: Evaluator, proposal: Proposal, report: Report, clock: StudyClock) -> Evaluation:
    """Run one recipe; whatever goes wrong becomes an outcome, and so does an accuracy that is NaN."""
    started = clock.now()
    try:
        evaluation = evaluator.run(proposal, report)
    except Exception as error:  # noqa: BLE001 - the search goes on whatever a method does
        return failed(proposal, describe(error), started=started, finished=clock.now())
    accuracy = evaluation.outcome.accuracy
    if evaluation.outcome.completed and (accuracy is None or not math.isfinite(accuracy)):
        return failed(proposal, f"the accuracy is {accuracy}", started=started, finished=clock.now())
    return evaluation


def failed(proposal: Proposal, error: str, *, started: float, finished: float) -> Evaluation:
    """The outcome of a recipe that failed, without a model."""
    return Evaluation(
        outcome=Outcome(
            id=proposal.id,
            recipe=proposal.recipe,
            status="failed",
            error=error,
            started=started,
            finished=finished,
            seed=proposal.recipe.seed,
            control=proposal.control,
        )
    )


def describe(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, as text that fits a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


#: Builds an evaluator where it will work; must be picklable, as Ray sends it to the workers.
OpenEvaluator = Callable[[StudyClock], Evaluator]


@dataclass(frozen=True, kw_only=True)
class OpenBench:
    """Builds a `BenchEvaluator` for a task: loads data and model, traces the model.

    Args:
        task: the `task:` mapping of the space file.
        runtime: how to train, as the driver measured it, so that all workers train the same way; None = measure here.
        cpus: threads of a trial.
        batch_size: to measure with.
    """

    task: Mapping[str, Any]
    runtime: Runtime | None
    cpus: int
    batch_size: int

    def __call__(self, clock: StudyClock) -> Evaluator:
        """Load the task in this process."""
        os.environ["OMP_NUM_THREADS"] = str(self.cpus)  # before torch starts its threads; Ray sets a guess of its own
        import torch

        from autoprune.tasks import load_task
        from autoprune.train import choose_runtime
        from autoprune.trial import Bench

        torch.set_num_threads(self.cpus)
        task = load_task(self.task)
        shape = tuple(task.example().shape)
        runtime = self.runtime or choose_runtime(task.model(), shape, self.batch_size, threads=self.cpus)
        return BenchEvaluator(Bench(task, runtime), clock)


class BenchEvaluator:
    """Runs recipes on a bench; completed ones come back with their model."""

    def __init__(self, bench: Bench, clock: StudyClock) -> None:
        self.bench, self.clock = bench, clock

    def run(self, proposal: Proposal, report: Report) -> Evaluation:
        """Run one recipe to its end."""
        from autoprune import trial

        done = trial.run(
            proposal.recipe, self.bench, report, id=proposal.id, control=proposal.control, clock=self.clock.now
        )
        if done.model is None or done.keep is None or not done.outcome.completed:
            return Evaluation(outcome=done.outcome)
        return Evaluation(outcome=done.outcome, files=self._files(done))

    def _files(self, done: Any) -> dict[str, bytes]:
        """The artefact as `artifact.save` writes it, without a folder that driver and worker would have to share."""
        from autoprune import artifact

        folder = Path(tempfile.mkdtemp(prefix="autoprune-model-"))
        try:
            info = {"outcome": json.loads(done.outcome.to_json()), "task": dict(self.bench.task.spec)}
            artifact.save(folder / "model", done.model, done.graph, done.keep, info=info)
            return {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir())}
        finally:
            shutil.rmtree(folder)


def write_model(models: Path, number: int, files: Mapping[str, bytes]) -> None:
    """Write `models/<number>/`, whole or not at all; replaces what a lost attempt left there."""
    target, beside = models / str(number), models / f".{number}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, content in files.items():
        (beside / name).write_bytes(content)
    shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)
