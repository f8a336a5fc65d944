"""The Tune trainable: an actor that runs trial segments, one after the other, and lives as long as the search."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from autoprune.files import read_files
from autoprune.search.on_ray.peers import PeerPlan, Peers
from autoprune.search.on_ray.segment_files import segment_files
from autoprune.search.on_ray.settings import BARRIER_SECONDS, TIMED_OUT
from autoprune.search.on_ray.study_actor import StudyActorStore
from autoprune.search.running.evaluator import Evaluation, OpenEvaluator, describe_error, failed_outcome
from autoprune.search.running.second_try import run_twice_if_out_of_memory
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.outcome import Outcome, Proposal, Rung
from autoprune.study.worker_name import WorkerName


class TrialWorker(tune.Trainable):
    """One actor that runs trial segments; task, data and dense model are loaded once, in `setup`."""

    def setup(
        self,
        config: dict[str, Any],
        open_evaluator: OpenEvaluator,
        clock: StudyClock,
        study_actor: Any,
        trial_timeout: float,
        plan: PeerPlan,
    ) -> None:
        """Start the other processes of its trials, open the evaluator and wait for the other workers."""
        self.request, self.clock, self.study_actor, self.trial_timeout = config, clock, study_actor, trial_timeout
        self.open_evaluator = open_evaluator
        self.peers = Peers(plan, open_evaluator, clock, study_actor) if plan.count > 1 else None
        self._open()
        ray.get(study_actor.arrive.remote())
        end = time.monotonic() + BARRIER_SECONDS
        while not ray.get(study_actor.all_arrived.remote()) and time.monotonic() < end:
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
        self.refusal = f"the worker on {socket.gethostname()} cannot load the task: {error}" if error else ""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next segment."""
        self.request = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the segment; its model goes to the study actor before its outcome goes to the driver."""
        segment = TrialSegment.from_plain(self.request)
        proposal = segment.proposal
        if ray.get(self.study_actor.has_timed_out.remote(proposal.id)):
            late = f"no end after {self.trial_timeout / 60:g} minutes (resources.trial_timeout_minutes)"
            return _as_result(self._refused(proposal, late))
        with self._end_process_if_hung(proposal.id):
            evaluation = run_twice_if_out_of_memory(segment, self._run_segment)
        if evaluation.files:
            ray.get(self.study_actor.store_model.remote(proposal.id, dict(evaluation.files)))
        return _as_result(evaluation.outcome)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a segment that is cut short starts again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def cleanup(self) -> None:
        """End the peers with this actor."""
        if self.peers is not None:
            self.peers.stop()

    def _run_segment(self, segment: TrialSegment) -> Evaluation:
        if self.peers is not None and not self.peers.actors:
            self._open()  # they could not load the task, or one of them failed alone
        number, evaluator = segment.proposal.id, self.evaluator
        if evaluator is None:
            return Evaluation(outcome=self._refused(segment.proposal, self.refusal))
        with segment_files(self.study_actor, segment) as (scratch, parent):

            def run_here() -> Evaluation:
                name = _name_of_this_process()
                return run_segment(evaluator, segment, self._may_go_on, self.clock, scratch, parent, name)

            evaluation = run_here() if self.peers is None else self.peers.run(segment.to_plain(), run_here)
            if evaluation.outcome.status == "paused":
                ray.get(self.study_actor.store_state.remote(number, read_files(scratch)))
        return evaluation

    def _may_go_on(self, _rung: Rung, _ratios: Mapping[str, float]) -> bool:
        """Whether there is time left at a rung; the driver has sent the moment when running trials stop."""
        stop_at = self.request["until"]
        return stop_at is None or self.clock.now() < stop_at

    def _refused(self, proposal: Proposal, error: str) -> Outcome:
        now = self.clock.now()
        return failed_outcome(proposal, error, started=now, finished=now)

    @contextmanager
    def _end_process_if_hung(self, number: int) -> Iterator[None]:
        """End this process if a trial hangs: Tune waits for ever. The study actor tells the next attempt of it."""

        def end_process() -> None:
            ray.get(self.study_actor.time_out.remote(number))
            os._exit(TIMED_OUT)

        timer = threading.Timer(self.trial_timeout, end_process)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _as_result(outcome: Outcome) -> dict[str, Any]:
    """The one report that Tune gets of a segment; the driver reads it back with the same default name of the metric."""
    return {"outcome": replace(outcome, worker=_name_of_this_process()).to_json(), "done": True}


def _name_of_this_process() -> str:
    """What logs and reports call this worker."""
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return str(WorkerName(node=socket.gethostname(), process=os.getpid(), gpus=tuple(gpus)))
