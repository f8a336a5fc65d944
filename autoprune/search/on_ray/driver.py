"""The driver's side of Tune: a dispatcher dressed as Tune's searcher, callback and stopper."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from autoprune.search.on_ray.cluster import needs_of_process
from autoprune.search.on_ray.deaths import Attempts, Death, explain_death
from autoprune.search.on_ray.peers import PeerPlan
from autoprune.search.on_ray.room import Room
from autoprune.search.on_ray.settings import PUT_BACK
from autoprune.search.on_ray.study_actor import start_study_actor
from autoprune.search.on_ray.worker import TrialWorker
from autoprune.search.running.dispatcher import OUT_OF_TIME
from autoprune.search.running.evaluator import OpenEvaluator
from autoprune.search.running.segments import TrialSegment
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher


def run_on_tune(dispatcher: Dispatcher, open_evaluator: OpenEvaluator, room: Room, folder: Path) -> None:
    """Run trials with Tune until the dispatcher hands out no more.

    Args:
        dispatcher: hands out trial segments and takes in their outcomes.
        open_evaluator: is called once in each worker process.
        room: how many trials run at the same time.
        folder: for what Tune writes.
    """
    workers = room.now()
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    searcher = DispatcherSearcher(dispatcher, room)
    tuner = tune.Tuner(
        bind_worker(TrialWorker, dispatcher, open_evaluator, workers),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=NewestFirst(),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=tempfile.mkdtemp(prefix="tune-", dir=folder),
            verbose=0,
            callbacks=[DispatcherCallback(searcher)],
            stop=DispatcherStopper(dispatcher),
            failure_config=tune.FailureConfig(max_failures=0),  # the searcher hands out again what was lost
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner.fit()
    if not dispatcher.interrupted:
        for segment in [*searcher.running.values(), *dispatcher.returned]:
            dispatcher.end_lost_trial(segment.proposal, "stopped", OUT_OF_TIME)


def bind_worker(
    kind: type[TrialWorker], dispatcher: Dispatcher, open_evaluator: OpenEvaluator, workers: int, **more: Any
) -> Any:
    """The trainable with what all of its actors are given, `more` included, and what each of them needs of a node."""
    resources = dispatcher.config.resources
    needs = needs_of_process(resources)
    bound = tune.with_parameters(
        kind,
        open_evaluator=open_evaluator,
        study_actor=start_study_actor(dispatcher, workers),
        trial_timeout=60 * resources.trial_timeout_minutes,
        plan=PeerPlan(count=resources.processes, needs=needs, seconds=60 * resources.trial_timeout_minutes),
        **more,
    )
    return tune.with_resources(bound, tune.PlacementGroupFactory([needs] * resources.processes, strategy="PACK"))


class NewestFirst(FIFOScheduler):
    """Gives a free actor to the newest waiting trial.

    Tune gives it to the oldest one, whose own actor is still starting, and then kills that actor; with short trials the
    pool never grows.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The pending trial that was made last."""
        for trial in reversed(tune_controller.get_trials()):
            if trial.status == "PENDING":
                return trial
        return None

    def set_search_properties(self, *_metric_and_mode: Any, **_spec: Any) -> bool:
        """Accept anything: this scheduler looks at no metric."""
        return True


class DispatcherSearcher(Searcher):
    """A dispatcher as a Tune searcher.

    Tune pickles its searchers into its own snapshot, where this one has no state.
    """

    def __init__(self, dispatcher: Dispatcher, room: Room) -> None:
        super().__init__()
        self.dispatcher, self.room = dispatcher, room
        self.running: dict[str, TrialSegment] = {}  # by Tune's id
        self.attempts = Attempts()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def set_search_properties(self, *_metric_mode_config: Any, **_spec: Any) -> bool:
        """Accept anything: the objectives are the dispatcher's business."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next segment as the configuration of a Tune trial; None while as many run as may."""
        if len(self.running) >= self.room.now():
            return None
        segment = self.dispatcher.next()
        if segment is not None:
            self.running[trial_id] = segment
            return {**segment.to_plain(), "until": self.dispatcher.budget.limits.stop_at}
        # FINISHED is final: Tune waits for the running trials, and that is all. None: there may be more when one of
        # them pauses, or is lost with its worker.
        return Searcher.FINISHED if self.dispatcher.finished_handing_out() and not self.running else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand over the outcome of a segment; one that has crashed has none, see `end_crashed`.

        A segment whose worker was taken away has none either, and goes on elsewhere.
        """
        if not error and result and PUT_BACK in result:
            segment = self.running.pop(trial_id)
            self.dispatcher.put_back(replace(segment, resumed=segment.resumed or result[PUT_BACK]))
        if error or not result or "outcome" not in result:
            return
        self.running.pop(trial_id, None)
        outcome = Outcome.from_json(result["outcome"])
        self.attempts.end(outcome.id)
        self.dispatcher.end_segment(outcome)

    def end_crashed(self, trial_id: str, death: Death) -> None:
        """A worker has died. What a method raises is an outcome, so the process itself came to its end.

        Another worker gets what it ran, unless that has cost too many.
        """
        segment = self.running.pop(trial_id, None)
        if segment is None or self.dispatcher.interrupted:
            return
        if error := self.attempts.count(segment.proposal.id, death):
            self.dispatcher.end_lost_trial(segment.proposal, "failed", error)
        else:
            self.dispatcher.put_back(segment)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the logs in the study folder are the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""


class DispatcherCallback(tune.Callback):
    """Tells the dispatcher of crashed trials and of the passing of time."""

    def __init__(self, searcher: DispatcherSearcher) -> None:
        self.searcher = searcher

    def on_step_end(self, **_info: Any) -> None:
        """Tune has looked once at all that runs."""
        self.searcher.dispatcher.refresh()

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        """The process of a worker is gone."""
        self.searcher.end_crashed(trial.trial_id, explain_death(trial.error_file))


class DispatcherStopper(tune.Stopper):
    """Ends everything at once when the user says so, and when running trials had their grace and do not report."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, *_trial_and_result: Any) -> bool:
        """No trial is stopped by its result."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over; if the user says so that is shown now: ending its workers takes Tune seconds."""
        if not self.dispatcher.must_end_now():
            return False
        if self.dispatcher.interrupted:
            self.dispatcher.refresh(force=True)
        return True
