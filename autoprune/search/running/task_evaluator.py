"""The evaluator that runs recipes on a task's shared trial state."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.search.running.evaluator import Evaluation, Evaluator, Report
from autoprune.search.running.mps import join_mps
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.outcome import Proposal
from autoprune.trial.cache import Store

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.tasks import Task
    from autoprune.training.runtime import Runtime
    from autoprune.trial.shared import SharedState


@dataclass(frozen=True)
class Loaded:
    """What the driver has loaded, for the processes that run trials.

    Fields:
        task: the task itself, or the `task:` mapping of the space file, if its data are read where they are needed.
        weights: of the dense model, as its `state_dict` has them.
    """

    task: Mapping[str, Any] | Task
    weights: Mapping[str, Tensor]

    def __call__(self) -> Loaded:
        """Itself: what a process has at hand."""
        return self

    def opened(self) -> tuple[Task, nn.Module]:
        """The task and its dense model, in this process."""
        from autoprune.tasks import load_task

        task = load_task(self.task) if isinstance(self.task, Mapping) else self.task
        model = task.build()
        model.load_state_dict(self.weights)  # which copies
        return task, model


@dataclass(frozen=True, kw_only=True)
class OpenTask:
    """Builds a `TaskEvaluator` for a task: loads data and model, traces the model.

    Args:
        loaded: gives what the driver has loaded.
        runtime: how to train, as the driver measured it, so that all workers train the same way; None = measure here.
        cpus: threads of a process.
        batch_size: of a process, to measure with.
        final: see `TaskEvaluator`.
        share: see `SharedState`.
        constraints, latency: see `run.run`.
        memory: GiB that a process may take, None = what there is; `gpus`: the part of a GPU that it has.
        mps: whether it uses that through the Multi-Process Service, where it can.
    """

    loaded: Callable[[], Loaded]
    runtime: Runtime | None
    cpus: int
    batch_size: int
    memory: float | None = None
    gpus: float = 0.0
    mps: bool = False
    final: bool = False
    share: bool = True
    constraints: Constraints | None = None
    latency: Latency | None = None

    def __call__(self, clock: StudyClock, store: Store) -> Evaluator:
        """Load the task in this process."""
        os.environ["OMP_NUM_THREADS"] = str(self.cpus)  # before torch starts its threads; Ray sets a guess of its own
        in_turns = join_mps() if self.mps else ""
        import torch

        from autoprune.tasks.user_code import find_modules_here
        from autoprune.training.memory import limit_memory
        from autoprune.training.processes import Processes
        from autoprune.training.runtime import choose_runtime
        from autoprune.trial.shared import SharedState

        torch.set_num_threads(self.cpus)
        find_modules_here()  # which what the driver has loaded may name
        task, model = self.loaded().opened()
        processes = Processes.current()
        runtime = self.runtime or choose_runtime(model, task, self.batch_size, threads=self.cpus)
        runtime = processes.agree(runtime)
        if self.memory is not None:
            limit_memory(self.memory, runtime.device, self.gpus)
        store = store if self.share else None
        shared = SharedState.of(task, runtime, store, model=model, share=self.share, processes=processes)
        notes = {"mps": f"processes take turns on the GPU: {in_turns}"} if in_turns else {}
        return TaskEvaluator(
            shared, clock, final=self.final, constraints=self.constraints, latency=self.latency, notes=notes
        )

    def handed_out(self, once_per_node: Callable[[Loaded], Callable[[], Loaded]]) -> OpenTask:
        """The same, small enough to be sent to every process: what was loaded goes the way of `once_per_node`."""
        return replace(self, loaded=once_per_node(self.loaded()))


@dataclass(frozen=True, kw_only=True)
class OpenLoaded:
    """Builds a `TaskEvaluator` on the state that this process has loaded already.

    Args:
        shared: with the study's store.
        cpus: threads of a trial.
        final: see `TaskEvaluator`.
        constraints, latency: see `run.run`.
    """

    shared: SharedState
    cpus: int
    final: bool = False
    constraints: Constraints | None = None
    latency: Latency | None = None

    def __call__(self, clock: StudyClock, _store: Store) -> Evaluator:
        """Hand out what is loaded; its own store is the study's."""
        import torch

        torch.set_num_threads(self.cpus)
        return TaskEvaluator(self.shared, clock, final=self.final, constraints=self.constraints, latency=self.latency)

    def handed_out(self, _once_per_node: Callable[[Loaded], Callable[[], Loaded]]) -> OpenLoaded:
        """Itself: it goes nowhere."""
        return self


class TaskEvaluator:
    """Runs recipes on a task; completed ones come back with their model.

    Args:
        final: whether its trials are finalists, which are measured on the test split as well.
        constraints, latency: see `run.run`.
        notes: of this process, for every outcome.
    """

    def __init__(
        self,
        shared: SharedState,
        clock: StudyClock,
        *,
        final: bool = False,
        constraints: Constraints | None = None,
        latency: Latency | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.shared, self.clock, self.final = shared, clock, final
        self.constraints, self.latency, self.notes = constraints, latency, dict(notes or {})

    def run(self, proposal: Proposal, report: Report, scratch: Path | None, parent: Path | None) -> Evaluation:
        """Run one recipe until its end or until `report` says no."""
        from autoprune.trial.lineage import run_lineage

        done = run_lineage(
            proposal.ancestors,
            proposal.recipe,
            self.shared,
            report,
            id=proposal.id,
            control=proposal.control,
            clock=self.clock.now,
            scratch=scratch,
            parent=parent,
            final=self.final,
            constraints=None if self.final else self.constraints,  # a finalist has kept them already
            latency=self.latency,
        )
        done = replace(done, outcome=replace(done.outcome, notes={**done.outcome.notes, **self.notes}))
        if done.model is None or done.remains is None or not done.outcome.completed:
            return Evaluation(outcome=done.outcome)
        return Evaluation(outcome=done.outcome, files=self._write_artefact(done))

    def _write_artefact(self, done: Any) -> dict[str, bytes]:
        """The artefact as `artifact.save` writes it, without a folder that driver and worker would have to share."""
        from autoprune.trial.pruned_model import save_pruned

        folder = Path(tempfile.mkdtemp(prefix="autoprune-model-"))
        try:
            task = self.shared.task
            info = {"outcome": json.loads(done.outcome.to_json(task.metric_spec)), "task": dict(task.spec)}
            save_pruned(folder / "model", done.model, done.remains, info)
            return {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir())}
        finally:
            shutil.rmtree(folder)
