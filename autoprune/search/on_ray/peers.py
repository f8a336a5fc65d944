"""Peers: the other processes of a trial that several processes train together.

The worker is the first of them. The others are actors in its placement group; all run the same segments, and talk by
`torch.distributed`. They live as long as the worker: Ray ends what a process that is gone has started.

Whoever fails leaves the others waiting for a message that never comes. So the worker watches its peers while it runs.
One whose process has died takes the worker with it: Tune starts the attempt again. One that has failed, and not all
others with it, is why the trial failed; then all peers are ended, and others started for the next segment.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from autoprune.search.on_ray.segment_files import segment_files
from autoprune.search.on_ray.settings import PEER_DIED, PEER_GRACE_SECONDS
from autoprune.search.on_ray.study_actor import StudyActorStore, study_clock
from autoprune.search.running.evaluator import Evaluation, Evaluator, OpenEvaluator, describe_error
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class PeerPlan:
    """What a worker starts its peers with.

    Fields:
        count: processes of a trial, the worker among them.
        needs: of each, as Ray calls it.
        seconds: a process that waits longer for another one gives up.
    """

    count: int
    needs: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PeerEnd:
    """How a process has ended what all do: when, on the study's clock, and its error; empty if it has none."""

    finished: float
    error: str


class Peer:
    """One of the other processes, as an actor.

    Args:
        open_evaluator, study_actor: as of the worker.
    """

    def __init__(self, open_evaluator: OpenEvaluator, study_actor: Any) -> None:
        self.open_evaluator, self.clock, self.study_actor = open_evaluator, study_clock(study_actor), study_actor
        self.evaluator: Evaluator | None = None

    def meet(self, address: tuple[str, int], rank: int, plan: PeerPlan) -> None:
        """Join the worker and the other peers."""
        _meet(address, rank, plan)

    def open(self) -> PeerEnd:
        """Load the task, with all others."""
        self.evaluator, end = _try_to_open(self.open_evaluator, self.clock, self.study_actor)
        return end

    def run(self, request: Mapping[str, Any]) -> PeerEnd:
        """Run a segment along with the worker; what it gives is the worker's to tell."""
        assert self.evaluator is not None
        segment = TrialSegment.from_plain(request)
        with segment_files(self.study_actor, segment) as (scratch, parent):
            evaluation = run_segment(self.evaluator, segment, _goes_on, self.clock, scratch, parent)
        return PeerEnd(finished=evaluation.outcome.finished, error=_error_of(evaluation.outcome))


class Peers:
    """The peers of one worker, from the worker.

    Args:
        plan: how many there are.
        open_evaluator, clock, study_actor: as of the worker.
    """

    def __init__(self, plan: PeerPlan, open_evaluator: OpenEvaluator, clock: StudyClock, study_actor: Any) -> None:
        self.plan, self.open_evaluator, self.clock, self.study_actor = plan, open_evaluator, clock, study_actor
        self.actors: list[Any] = []

    def open(self) -> tuple[Evaluator | None, str]:
        """Start them, and load the task in all processes.

        Returns:
            The evaluator of this one, and the first error; one of the two.
        """
        self._start()
        opening = [actor.open.remote() for actor in self.actors]
        evaluator, end = _try_to_open(self.open_evaluator, self.clock, self.study_actor)
        first = min((each for each in [end, *ray.get(opening)] if each.error), key=_when, default=None)
        if first is None:
            return evaluator, ""
        self.stop()
        return None, first.error

    def _start(self) -> None:
        """Start and meet them."""
        group = ray.util.get_current_placement_group()
        needs = self.plan.needs
        kinds = {"num_cpus": needs.get("CPU", 0), "num_gpus": needs.get("GPU", 0), "memory": needs.get("memory", 0)}
        for rank in range(1, self.plan.count):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            peer = ray.remote(Peer).options(**kinds, scheduling_strategy=place)
            self.actors.append(peer.remote(self.open_evaluator, self.study_actor))
        listener = socket.create_server((ray.util.get_node_ip_address(), 0))
        address = listener.getsockname()
        met = [actor.meet.remote(address, rank, self.plan) for rank, actor in enumerate(self.actors, 1)]
        _meet(address, 0, self.plan, listener)
        ray.get(met)

    def run(self, request: Mapping[str, Any], own: Callable[[], Evaluation]) -> Evaluation:
        """Run a segment in all processes.

        Args:
            own: runs it in this one.

        Returns:
            What `own` gave; if another process had failed before, with the error of that one.
        """
        running = [actor.run.remote(request) for actor in self.actors]
        with self._watched(running) as given_up:
            evaluation = own()
        ended, _late = ray.wait(running, num_returns=len(running), timeout=PEER_GRACE_SECONDS)
        ends = [_end_of(one, killed=given_up.is_set()) for one in ended]
        own_error = _error_of(evaluation.outcome)
        if len(ends) < len(running) or {end.error for end in ends} != {own_error}:
            self.stop()
        first = min((end for end in ends if end.error), key=_when, default=None)
        if own_error and first is not None and first.finished < evaluation.outcome.finished:
            return replace(evaluation, outcome=replace(evaluation.outcome, error=first.error))
        return evaluation

    def stop(self) -> None:
        """End them all."""
        from autoprune.training.processes import part

        for actor in self.actors:
            ray.kill(actor)
        self.actors = []
        part()

    @contextmanager
    def _watched(self, running: list[Any]) -> Iterator[threading.Event]:
        """Within it a thread watches what the peers run; what it yields is set once the thread has killed them."""
        over, given_up = threading.Event(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(running, over, given_up), daemon=True)
        watcher.start()
        try:
            yield given_up
        finally:
            over.set()
            watcher.join()

    def _watch(self, running: list[Any], over: threading.Event, given_up: threading.Event) -> None:
        """Until this process is through with the segment; if a peer has failed and this one waits for it, end both."""
        left, failed = running, False
        while left and not failed:
            if over.wait(0.2):
                return
            ended, left = ray.wait(left, num_returns=len(left), timeout=0)
            failed = any(end.error for end in map(_end_of, ended))
        if not failed or over.wait(PEER_GRACE_SECONDS):
            return
        given_up.set()
        for actor in self.actors:
            ray.kill(actor)  # what this process waits for will not come: by gloo it learns so at once
        if not over.wait(PEER_GRACE_SECONDS):
            os._exit(PEER_DIED)


def _try_to_open(
    open_evaluator: OpenEvaluator, clock: StudyClock, study_actor: Any
) -> tuple[Evaluator | None, PeerEnd]:
    """The evaluator, or why there is none; then those that wait for this process fail too."""
    from autoprune.training.processes import part

    try:
        evaluator = open_evaluator(clock, StudyActorStore(study_actor))
    except Exception as error:  # noqa: BLE001 - data and models are the user's, and may raise anything
        end = PeerEnd(finished=clock.now(), error=describe_error(error))
        part()
        return None, end
    return evaluator, PeerEnd(finished=clock.now(), error="")


def _when(end: PeerEnd) -> float:
    return end.finished


def _end_of(ended: Any, *, killed: bool = False) -> PeerEnd:
    """How a peer has ended a segment; if its process has died, and was not killed by this one, this one ends too."""
    try:
        end: PeerEnd = ray.get(ended)
    except RayActorError:
        if not killed:
            os._exit(PEER_DIED)
        return PeerEnd(finished=math.inf, error="it waited for a process that had failed")
    except Exception as error:  # noqa: BLE001 - what happens around a segment, such as a state that cannot be fetched
        return PeerEnd(finished=0.0, error=describe_error(error))
    return end


def _error_of(outcome: Outcome) -> str:
    return outcome.error or "" if outcome.status == "failed" else ""


def _goes_on(*_rung_and_ratios: Any) -> bool:
    """The worker decides."""
    return True


def _meet(address: tuple[str, int], rank: int, plan: PeerPlan, listener: socket.socket | None = None) -> None:
    from autoprune.training.processes import Processes, meet

    processes = Processes(rank=rank, count=plan.count)
    nccl = plan.needs.get("GPU", 0) >= 1
    meet(address, processes, seconds=plan.seconds, listener=listener, nccl=nccl)
