"""Placement: where the trials of a search run, and the executor for that place."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.errors import InputError
from autoprune.search.running.executor import Executor
from autoprune.search.running.in_process import InProcessExecutor
from autoprune.study.config import Resources


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the trials of a search run.

    Fields:
        address: of a running Ray cluster; None starts Ray on this machine.
        in_process: one trial after the other in this process, without Ray.
    """

    address: str | None = None
    in_process: bool = False

    def executor(self, resources: Resources) -> Executor:
        """The executor for that place.

        Args:
            resources: per trial, and how many at a time.

        Raises:
            InputError: trials of several processes in this one, or a limit for its memory, or one that shares a GPU.
        """
        if self.in_process and resources.memory_per_trial is not None:
            what, allowed = "a limit for the memory of the process that searches", "none, or a search on Ray"
            raise InputError(what, where="resources.memory_per_trial", allowed=allowed)
        if self.in_process and resources.mps:
            what, allowed = "one trial after the other in one process", "false, or a search on Ray"
            raise InputError(what, where="resources.mps", allowed=allowed)
        if self.in_process and resources.processes > 1:
            what, allowed = f"{resources.processes} processes per trial in one process", "1, or a search on Ray"
            raise InputError(what, where="resources.processes_per_trial", allowed=allowed)
        if self.in_process:
            return InProcessExecutor()
        from autoprune.search.on_ray.executor import RayExecutor  # Ray takes a second to import

        return RayExecutor(resources, self.address)
