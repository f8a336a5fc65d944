"""The search in one process, without Ray: one trial after the other. For debugging, small machines and tests."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from autoprune.files import fill, read_files
from autoprune.search.running.evaluator import Evaluation, Evaluator, OpenEvaluator
from autoprune.search.running.executor import Executor
from autoprune.search.running.second_try import run_twice_if_out_of_memory
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.study.config import Resources
from autoprune.study.outcome import Rung
from autoprune.study.worker_name import WorkerName
from autoprune.trial.cache import FolderStore

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher

T = TypeVar("T")


class InProcessExecutor(Executor):
    """Runs trials in this process, which is always ready."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def wait_until_ready(self) -> None:
        """See `Executor.wait_until_ready`."""

    def run(self, dispatcher: Dispatcher, open_evaluator: OpenEvaluator) -> None:
        """See `Executor.run`."""
        evaluator = open_evaluator(dispatcher.clock, FolderStore(dispatcher.folder.shared))
        run(dispatcher, evaluator, trial_timeout=60 * dispatcher.config.resources.trial_timeout_minutes)

    def call(self, job: Callable[[], T]) -> T:
        """See `Executor.call`."""
        return job()


def run(dispatcher: Dispatcher, evaluator: Evaluator, *, trial_timeout: float) -> None:
    """Run trials until the dispatcher hands out no more.

    A hung trial cannot be ended from inside its own process: a trial that takes longer than `trial_timeout` seconds is
    stopped at its next rung.
    """
    try:
        with _sigterm_interrupts():
            while (segment := dispatcher.next()) is not None:
                dispatcher.refresh(force=True)
                _run_segment(dispatcher, evaluator, segment, stop_at=dispatcher.clock.now() + trial_timeout)
    except KeyboardInterrupt:
        dispatcher.interrupted = True


def _run_segment(dispatcher: Dispatcher, evaluator: Evaluator, segment: TrialSegment, stop_at: float) -> None:
    def report(_rung: Rung, _ratios: Mapping[str, float]) -> bool:
        dispatcher.refresh()
        return not dispatcher.should_stop_running() and dispatcher.clock.now() < stop_at

    number = segment.proposal.id

    def run_once(segment: TrialSegment) -> Evaluation:
        with tempfile.TemporaryDirectory(prefix="autoprune-trial-") as folder:
            if segment.resumed:
                fill(Path(folder), dispatcher.states.read(number))
            parent = None if segment.parent is None else dispatcher.models.path / str(segment.parent)
            worker = _name_of_this_process(dispatcher.config.resources)
            evaluation = run_segment(evaluator, segment, report, dispatcher.clock, Path(folder), parent, worker)
            if evaluation.outcome.status == "paused":
                state = read_files(Path(folder))
                dispatcher.write_patiently(lambda: dispatcher.states.write(number, state))
        return evaluation

    evaluation = run_twice_if_out_of_memory(segment, run_once)
    if evaluation.files:
        dispatcher.write_patiently(lambda: dispatcher.models.write(number, evaluation.files))
    dispatcher.end_segment(evaluation.outcome)


def _name_of_this_process(resources: Resources) -> str:
    """What logs and reports call it; with GPUs it computes on the one that torch takes by itself."""
    gpus: tuple[str, ...] = ()
    if resources.gpus:
        import torch

        gpus = (str(torch.cuda.current_device()),) if torch.cuda.is_available() else ()
    return str(WorkerName(node=socket.gethostname(), process=os.getpid(), gpus=gpus))


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a search as Ctrl-C does; elsewhere than in the main thread Python allows no handlers."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
