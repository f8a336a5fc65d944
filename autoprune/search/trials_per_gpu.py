"""Trials per GPU: how many share one, where the configuration leaves that to measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from autoprune.search.prepare import Prepared
from autoprune.search.running.executor import Executor
from autoprune.search.running.task_evaluator import Loaded, OpenTask
from autoprune.study.config import AUTO
from autoprune.training.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class CountTrials:
    """Counts them in a process that has a GPU to itself.

    Fields:
        loaded, runtime, batch_size, cpus: as of `OpenTask`.
        memory: GiB that a trial may take; None = what it is measured to take.
    """

    loaded: Callable[[], Loaded]
    runtime: Runtime | None
    batch_size: int
    cpus: int
    memory: float | None

    def __call__(self) -> int:
        """How many trials should share the GPU of this process."""
        from autoprune.tasks.user_code import find_modules_here
        from autoprune.training.gpu_sharing import trainings_that_pay
        from autoprune.training.runtime import choose_runtime

        find_modules_here()
        task, model = self.loaded().opened()
        runtime = self.runtime or choose_runtime(model, task, self.batch_size, threads=self.cpus)
        return 1 if runtime.device == "cpu" else trainings_that_pay(model, task, self.batch_size, runtime, self.memory)


def shared_out(executor: Executor, prepared: Prepared) -> Prepared:
    """The same, with a number in place of `resources.gpus_per_trial: auto`; it is measured where trials will run."""
    resources, opener = prepared.config.resources, prepared.open_evaluator
    if resources.gpus_per_trial != AUTO:
        return prepared
    trials = 1
    if isinstance(opener, OpenTask):
        job = CountTrials(
            loaded=executor.once_per_node(opener.loaded()),
            runtime=opener.runtime,
            batch_size=opener.batch_size,
            cpus=opener.cpus,
            memory=opener.memory,
        )
        trials = executor.call(job)
        share = resources.with_trials_on_a_gpu(trials).gpus_per_process
        opener = replace(opener, gpus=share, mps=opener.mps and trials > 1)
    config = replace(prepared.config, resources=resources.with_trials_on_a_gpu(trials))
    said = f"{trials} trials share each GPU" if trials > 1 else "each trial has a GPU to itself"
    remark = f"resources.gpus_per_trial: auto was measured: {said}"
    return replace(prepared, config=config, open_evaluator=opener, remarks=(*prepared.remarks, remark))
