"""Evaluator: the seam between a search and what it searches over. The real one runs recipes on a task's bench."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autoprune.results import Outcome, Proposal, Rung, Stretch
from autoprune.space import Constraints, Latency
from autoprune.store import Store

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
class Leg:
    """A part of a recipe's way, from its start or the rung where it paused, that one worker runs.

    Fields:
        until: the rung at which it pauses, as a share of the training images; 1 = nowhere.
        resumed: it goes on from what is in `states/<id>`.
    """

    proposal: Proposal
    until: float = 1.0
    resumed: bool = False

    def to_plain(self) -> dict[str, Any]:
        """What a worker is sent; `Leg.from_plain(leg.to_plain()) == leg`."""
        return {"proposal": self.proposal.to_json(), "pause": self.until, "resumed": self.resumed}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Leg:
        """The inverse of `to_plain`; other keys are left alone."""
        proposal = Proposal.from_json(data["proposal"])
        return cls(proposal=proposal, until=data["pause"], resumed=data["resumed"])


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What became of a recipe: its outcome and, if it completed, the files of the pruned model by name."""

    outcome: Outcome
    files: Mapping[str, bytes] = field(default_factory=dict)


class Evaluator(Protocol):
    """Runs recipes, one after the other, in one process."""

    def run(self, proposal: Proposal, report: Report, scratch: Path | None) -> Evaluation:
        """Run one recipe until its end or until `report` says no; one that fails is an outcome with status `failed`.

        In `scratch` lies what it goes on from, if it paused before, and what it leaves to go on from; None = it will
        not pause.
        """


def run_leg(
    evaluator: Evaluator, leg: Leg, report: Report, clock: StudyClock, scratch: Path, worker: str = ""
) -> Evaluation:
    """Run one leg; a recipe that comes as far as its rung has the status `paused`.

    Args:
        report: hears of every rung; False = stop for good, as the time is over.
        scratch: holds the files of `states/<id>` if the leg is resumed, else nothing.
        worker: who runs it.
    """
    paused = False

    def heard(rung: Rung, ratios: Mapping[str, float]) -> bool:
        nonlocal paused
        goes_on = report(rung, ratios)
        paused = goes_on and rung.comparable and leg.until <= rung.share < 1
        return goes_on and not paused

    needed, began = leg.resumed or leg.until < 1, clock.now()
    evaluation = run_safely(evaluator, leg.proposal, heard, clock, scratch if needed else None)
    stretch = Stretch(worker=worker, started=began, finished=clock.now())
    outcome = replace(evaluation.outcome, worker=worker, legs=(stretch,))
    if outcome.status == "stopped" and paused:
        outcome = replace(outcome, status="paused")
    elif outcome.status == "stopped":  # without an error it would say that the recipe lost a comparison
        outcome = replace(outcome, error=outcome.error or "its time was over")
    return replace(evaluation, outcome=outcome)


def run_safely(
    evaluator: Evaluator, proposal: Proposal, report: Report, clock: StudyClock, scratch: Path | None = None
) -> Evaluation:
    """Run one recipe; whatever goes wrong becomes an outcome, and so does an accuracy that is NaN."""
    started = clock.now()
    try:
        evaluation = evaluator.run(proposal, report, scratch)
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
OpenEvaluator = Callable[[StudyClock, Store], Evaluator]


@dataclass(frozen=True, kw_only=True)
class OpenBench:
    """Builds a `BenchEvaluator` for a task: loads data and model, traces the model.

    Args:
        task: the `task:` mapping of the space file.
        runtime: how to train, as the driver measured it, so that all workers train the same way; None = measure here.
        cpus: threads of a trial.
        batch_size: to measure with.
        final: see `BenchEvaluator`.
        share: see `Bench`.
        constraints, latency: see `trial.run`.
    """

    task: Mapping[str, Any]
    runtime: Runtime | None
    cpus: int
    batch_size: int
    final: bool = False
    share: bool = True
    constraints: Constraints | None = None
    latency: Latency | None = None

    def __call__(self, clock: StudyClock, store: Store) -> Evaluator:
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
        bench = Bench(task, runtime, store if self.share else None, share=self.share)
        return BenchEvaluator(bench, clock, final=self.final, constraints=self.constraints, latency=self.latency)


class BenchEvaluator:
    """Runs recipes on a bench; completed ones come back with their model.

    Args:
        final: what it runs are finalists, which are measured on the test split as well.
        constraints, latency: see `trial.run`.
    """

    def __init__(
        self,
        bench: Bench,
        clock: StudyClock,
        *,
        final: bool = False,
        constraints: Constraints | None = None,
        latency: Latency | None = None,
    ) -> None:
        self.bench, self.clock, self.final = bench, clock, final
        self.constraints, self.latency = constraints, latency

    def run(self, proposal: Proposal, report: Report, scratch: Path | None) -> Evaluation:
        """Run one recipe until its end or until `report` says no."""
        from autoprune import trial

        done = trial.run(
            proposal.recipe,
            self.bench,
            report,
            id=proposal.id,
            control=proposal.control,
            clock=self.clock.now,
            scratch=scratch,
            final=self.final,
            constraints=None if self.final else self.constraints,  # a finalist has kept them already
            latency=self.latency,
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


def write_files(folder: Path, number: int, files: Mapping[str, bytes]) -> None:
    """Write `folder/<number>/`, whole or not at all; replaces what was there."""
    target, beside = folder / str(number), folder / f".{number}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    fill(beside, files)
    shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)


def read_files(folder: Path) -> dict[str, bytes]:
    """What `write_files` wrote: path inside the folder -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if it is new; names may hold folders."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
