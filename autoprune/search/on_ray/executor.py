"""The executor on Ray: starts Ray or connects to it in the background, and runs trials on it with Tune."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import ray

from autoprune.errors import StudyError, first_line
from autoprune.search.on_ray.cluster import (
    check_local_gpus,
    connect,
    count_slots,
    needs_of_process,
    start_on_this_machine,
)
from autoprune.search.on_ray.driver import run_on_tune
from autoprune.search.on_ray.pool import run_in_pool, workers_stay
from autoprune.search.on_ray.quiet import guarded_by_token, quiet_terminal, scratch_folder, signals_interrupt
from autoprune.search.on_ray.room import Room
from autoprune.search.running.evaluator import OpenEvaluator
from autoprune.search.running.executor import Executor
from autoprune.study.config import Resources

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher

T = TypeVar("T")


class RayExecutor(Executor):
    """Runs trials on Ray, which opens in the background: that takes seconds in which the driver loads the task.

    Args:
        resources: per trial, and how many at a time.
        address: of a running cluster (`auto` finds the one this machine belongs to); None starts Ray on this machine
            and ends it with the `with` block.
    """

    def __init__(self, resources: Resources, address: str | None = None) -> None:
        self.resources, self.address = resources, address
        self._stack = ExitStack()
        self._error: BaseException | None = None
        self._dashboard: str | None = None
        self._open, self._closing = threading.Event(), threading.Event()
        # Its name keeps what Ray prints in it off the terminal, see `quiet`.
        self._thread = threading.Thread(target=self._hold_ray, name="ray_hold", daemon=True)

    def __enter__(self) -> Self:
        if self.address is None:
            check_local_gpus(self.resources)  # before anything is loaded for GPUs that are not there
        self._stack.enter_context(quiet_terminal())
        self.folder = self._stack.enter_context(scratch_folder())
        if self.address is None:
            self._stack.enter_context(guarded_by_token())
        self._stack.callback(self._thread.join)
        self._stack.callback(self._closing.set)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait_until_ready(self) -> None:
        """Wait until Ray is up.

        Raises:
            InputError: nothing answers at the address, or no node has what one trial needs.
        """
        self._open.wait()
        if self._error is not None:
            raise self._error
        count_slots(self.resources, self.address)

    def run(self, dispatcher: Dispatcher, open_evaluator: OpenEvaluator) -> None:
        """See `Executor.run`; as many workers as fit, on nodes that join too, but no more than there are trials."""
        self.wait_until_ready()
        resources = dispatcher.config.resources  # of which this executor knew not yet how many trials share a GPU
        wanted = [most for most in (resources.workers, dispatcher.remaining()) if most is not None]
        room = Room(lambda: count_slots(resources, self.address), most=min(wanted, default=None))
        workers = room.now()
        stay = workers_stay(workers, dispatcher.seconds_of_a_trial())
        dispatcher.dashboard, dispatcher.workers = self._dashboard, _describe_workers(workers, stay=stay)
        run = run_in_pool if stay else run_on_tune
        with signals_interrupt(dispatcher):
            run(dispatcher, open_evaluator, room, self.folder)

    def call(self, job: Callable[[], T]) -> T:
        """See `Executor.call`."""
        self.wait_until_ready()
        needs = needs_of_process(self.resources)
        kinds = {"num_cpus": needs.get("CPU", 0), "num_gpus": needs.get("GPU", 0), "memory": needs.get("memory", 0)}
        try:
            result: T = ray.get(ray.remote(_call).options(max_retries=0, **kinds).remote(job))
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            raise StudyError(f"a process beside the trials has died: {first_line(error, 200)}") from error
        return result

    def once_per_node(self, value: T) -> Callable[[], T]:
        """See `Executor.once_per_node`: arrays lie in Ray's store, which all processes of a node map."""
        self.wait_until_ready()
        return InStore(ray.put(value))

    def _hold_ray(self) -> None:
        """Start Ray, and end it in the same thread: Linux kills Ray's processes when the thread that made them ends."""
        try:
            if self.address is None:
                start_on_this_machine(self.folder, self.resources)
            else:
                self._dashboard = connect(self.address)
        except BaseException as error:  # noqa: BLE001 - raised again by `wait_until_ready`
            self._error = error
        self._open.set()
        self._closing.wait()
        ray.shutdown()


@dataclass(frozen=True)
class InStore:
    """What lies in Ray's store as long as the driver holds this."""

    reference: Any

    def __call__(self) -> Any:
        """Its arrays are not copied, and not to be written to."""
        return ray.get(self.reference)


def _call(job: Callable[[], T]) -> T:
    return job()


def _describe_workers(workers: int, *, stay: bool) -> str:
    """How trials come to workers, for the log."""
    count = "1 worker" if workers == 1 else f"{workers} workers"
    how = "that stay, and take trials from a queue" if stay else "for trials that Tune places one by one"
    return f"{count} {how}"
