"""The Tune trainable: an actor that runs trial segments, one after the other, and lives as long as the search."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from autoprune.files import read_files
from autoprune.search.on_ray.peers import PeerPlan, Peers
from autoprune.search.on_ray.segment_files import segment_files
from autoprune.search.on_ray.settings import (
    BARRIER_SECONDS,
    GPU_FAILED,
    HUNG_GRACE_SECONDS,
    NOTICE_SECONDS,
    OPENING_SECONDS,
    PUT_BACK,
    TAKEN_AWAY,
    TIMED_OUT,
    UNUSABLE_GPU_SECONDS,
)
from autoprune.search.on_ray.study_actor import StudyActorStore, ask_patiently, study_clock
from autoprune.search.running.evaluator import Evaluation, OpenEvaluator, describe_error, failed_outcome
from autoprune.search.running.second_try import run_twice_if_out_of_memory
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.study.outcome import Outcome, Proposal, Rung
from autoprune.study.worker_name import WorkerName
from autoprune.training.gpu_faults import GpuFaultError, UnusableGpuError, gpu_fault
from autoprune.training.notice import NOTICE, PausedByNoticeError


class TrialWorker(tune.Trainable):
    """One actor that runs trial segments; task, data and dense model are loaded once, in `setup`."""

    def setup(
        self,
        config: dict[str, Any],
        open_evaluator: OpenEvaluator,
        study_actor: Any,
        trial_timeout: float,
        plan: PeerPlan,
    ) -> None:
        """Start the other processes of its trials, open the evaluator and wait for the other workers."""
        self.request, self.study_actor, self.trial_timeout = config, study_actor, trial_timeout
        self.clock, self._segment_runs = study_clock(study_actor), False
        self._left_state = False
        self._before_sigterm = signal.signal(signal.SIGTERM, self._take_notice)
        self.open_evaluator = open_evaluator
        self.peers = Peers(plan, open_evaluator, self.clock, study_actor) if plan.count > 1 else None
        with _exit_if_hung(max(trial_timeout, OPENING_SECONDS)):
            self._open()
        self.wait_for_others()

    def wait_for_others(self) -> None:
        """Wait until all workers are up, or for a minute: see `NewestFirst`."""
        ray.get(self.study_actor.arrive.remote())
        end = time.monotonic() + BARRIER_SECONDS
        while not ray.get(self.study_actor.all_arrived.remote()) and time.monotonic() < end:
            time.sleep(0.05)

    def _open(self) -> None:
        """Load the task, in all processes of a trial at once: what they know of it is the same."""
        self.evaluator, error = None, ""
        try:
            if self.peers is None:
                self.evaluator = self.open_evaluator(self.clock, StudyActorStore(self.study_actor))
            else:
                self.evaluator, error = self.peers.open()
        except Exception as failure:  # noqa: BLE001 - a worker that raises here is started again and again, without end
            error = describe_error(failure)
        if error and (fault := _fault_of_gpu()):
            time.sleep(UNUSABLE_GPU_SECONDS)
            raise UnusableGpuError(fault, where=socket.gethostname())
        self.refusal = f"the worker on {socket.gethostname()} cannot load the task: {error}" if error else ""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next segment."""
        self.request = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the segment; its model goes to the study actor before its outcome goes to the driver.

        A segment that pauses as this process is taken away has no outcome: the driver hands it out again.
        """
        segment = TrialSegment.from_plain(self.request)
        proposal = segment.proposal
        if ray.get(self.study_actor.has_timed_out.remote(proposal.id)):
            late = f"no end after {self.trial_timeout / 60:g} minutes (resources.trial_timeout_minutes)"
            return _as_result(self._refused(proposal, late))
        try:
            evaluation = run_twice_if_out_of_memory(segment, self._run_segment)
        except PausedByNoticeError:
            threading.Timer(NOTICE_SECONDS, os._exit, [TAKEN_AWAY]).start()  # no next segment shall begin here
            return {PUT_BACK: self._left_state, "done": True}
        if evaluation.outcome.status == "failed" and (fault := _fault_of_gpu()):
            threading.Timer(NOTICE_SECONDS, os._exit, [GPU_FAILED]).start()  # whatever ran here next would fail too
            raise GpuFaultError(f"{fault}; {evaluation.outcome.error}", where=socket.gethostname())
        if evaluation.files:
            files = dict(evaluation.files)
            ask_patiently(lambda: self.study_actor.store_model.remote(proposal.id, files))
        return _as_result(evaluation.outcome)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a segment that is cut short starts again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def cleanup(self) -> None:
        """End the peers with this actor."""
        if self.peers is not None:
            self.peers.stop()

    def _take_notice(self, number: int, frame: Any) -> None:
        """A first SIGTERM while a segment runs lets it pause; any other ends the process, as Ray wants it."""
        if self._segment_runs and not NOTICE.given:
            NOTICE.given = True
        elif callable(self._before_sigterm):
            self._before_sigterm(number, frame)

    def _run_segment(self, segment: TrialSegment) -> Evaluation:
        if self.peers is not None and not self.peers.actors:
            self._open()  # they could not load the task, or one of them failed alone
        number, evaluator = segment.proposal.id, self.evaluator
        if evaluator is None:
            return Evaluation(outcome=self._refused(segment.proposal, self.refusal))
        with segment_files(self.study_actor, segment) as (scratch, parent):

            def run_here() -> Evaluation:
                name, alone = _name_of_this_process(), self.peers is None
                return run_segment(
                    evaluator, segment, self._may_go_on, self.clock, scratch, parent, name, keep_state=alone
                )

            try:
                with self._end_process_if_hung(number):
                    evaluation = run_here() if self.peers is None else self.peers.run(segment.to_plain(), run_here)
            except PausedByNoticeError:
                self._left_state = segment == TrialSegment.from_plain(self.request)  # not a second try in other passes
                if self._left_state:
                    self._store_state(number, scratch)
                raise
            if evaluation.outcome.status == "paused":
                self._store_state(number, scratch)
        return evaluation

    def _store_state(self, number: int, scratch: Path) -> None:
        state = read_files(scratch)
        ask_patiently(lambda: self.study_actor.store_state.remote(number, state))

    def _may_go_on(self, _rung: Rung, _ratios: Mapping[str, float]) -> bool:
        """Whether there is time left at a rung; the driver has sent the moment when running trials stop."""
        stop_at = self.request["until"]
        return stop_at is None or self.clock.now() < stop_at

    def _refused(self, proposal: Proposal, error: str) -> Outcome:
        now = self.clock.now()
        return failed_outcome(proposal, error, started=now, finished=now)

    @contextmanager
    def _end_process_if_hung(self, number: int) -> Iterator[None]:
        """End this process if a trial hangs: Tune waits for ever. The study actor tells the next attempt of it.

        A trial that hangs within a library, and lets no other thread of Python run, is ended a little later; then the
        next attempt is not told.
        """

        def end_process() -> None:
            ray.get(self.study_actor.time_out.remote(number))
            os._exit(TIMED_OUT)

        timer = threading.Timer(self.trial_timeout, end_process)
        timer.daemon = True
        timer.start()
        self._segment_runs = True
        try:
            with _exit_if_hung(self.trial_timeout + HUNG_GRACE_SECONDS):
                yield
        finally:
            self._segment_runs = False
            timer.cancel()


@contextmanager
def _exit_if_hung(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, whatever it does; its log in Ray's folder says where it was."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _as_result(outcome: Outcome) -> dict[str, Any]:
    """The one report that Tune gets of a segment; the driver reads it back with the same default name of the metric."""
    return {"outcome": replace(outcome, worker=_name_of_this_process()).to_json(), "done": True}


def _fault_of_gpu() -> str:
    """What is wrong with the GPU of this worker, if it has one; else empty."""
    return gpu_fault() if gpus_of_this_process() else ""


def gpus_of_this_process() -> list[str]:
    """Those that Ray has given it."""
    return list(ray.get_runtime_context().get_accelerator_ids().get("GPU", []))


def _name_of_this_process() -> str:
    """What logs and reports call this worker."""
    gpus = gpus_of_this_process()
    return str(WorkerName(node=socket.gethostname(), process=os.getpid(), gpus=tuple(gpus)))
