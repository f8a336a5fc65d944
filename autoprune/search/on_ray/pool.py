"""Workers that stay, for many slots: a Tune trial is a worker's life, in which it takes one segment after the other.

Tune places the workers and sees them die; what they run they take from a queue that a feeder fills. With a Tune trial
for every segment its loop is the limit: it manages 20 to 50 a second, and 64 workers have all started after 100 s.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher

from autoprune.search.on_ray.deaths import explain_death
from autoprune.search.on_ray.driver import bind_worker
from autoprune.search.on_ray.feeder import Feeder
from autoprune.search.on_ray.pulling_worker import PullingWorker
from autoprune.search.on_ray.room import Room
from autoprune.search.on_ray.segment_queue import start_segment_queue
from autoprune.search.running.evaluator import OpenEvaluator

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher


#: With more workers than this they stay: 64 took 100 s to start where Tune has a trial for every segment.
MOST_SHORT_LIVED = 64

#: With more segments a second than this too: Tune's loop was seen to manage 7 to 17 of them beside the TPE sampler.
MOST_SEGMENTS_A_SECOND = 5.0


def workers_stay(workers: int, seconds: float | None) -> bool:
    """Whether workers should stay, rather than that every segment is a Tune trial.

    Args:
        seconds: of an average trial, None = not known before the first one.
    """
    return workers > MOST_SHORT_LIVED or (seconds is not None and workers > MOST_SEGMENTS_A_SECOND * seconds)


def run_in_pool(dispatcher: Dispatcher, open_evaluator: OpenEvaluator, room: Room, folder: Path) -> None:
    """Run trials on workers that stay until the dispatcher hands out no more; see `run_on_tune`."""
    segments = start_segment_queue()
    trainable = bind_worker(PullingWorker, dispatcher, open_evaluator, room.now(), segments=segments)
    run_workers(trainable, Feeder(dispatcher, segments, room.now), room, folder)


def run_workers(trainable: Any, feeder: Feeder, room: Room, folder: Path) -> None:
    """Run workers with Tune until the feeder has come to its end.

    Args:
        trainable: a worker; it is told its name as `worker`.
        room: how many workers there are at the same time.
        folder: for what Tune writes.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(room.now())
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=WorkerSearcher(feeder, room),
            num_samples=-1,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=tempfile.mkdtemp(prefix="tune-", dir=folder),
            verbose=0,
            callbacks=[DeathCallback(feeder)],
            stop=PoolStopper(feeder),
            failure_config=tune.FailureConfig(max_failures=0),  # a worker that has died is replaced by another one
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    feeder.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuner.fit()
    finally:
        feeder.stop()


class WorkerSearcher(Searcher):
    """Suggests a worker wherever there are fewer than wanted."""

    def __init__(self, feeder: Feeder, room: Room) -> None:
        super().__init__()
        self.feeder, self.room = feeder, room
        self.alive: set[str] = set()  # or about to be

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def set_search_properties(self, *_metric_mode_config: Any, **_spec: Any) -> bool:
        """Accept anything: workers have no objective."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The name of a new worker."""
        if self.feeder.ended.is_set():
            return Searcher.FINISHED
        if len(self.alive) >= self.room.now():
            return None
        self.alive.add(trial_id)
        return {"worker": trial_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A worker has ended, or died."""
        self.alive.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the logs in the study folder are the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""


class DeathCallback(tune.Callback):
    """Tells the feeder of workers that have died."""

    def __init__(self, feeder: Feeder) -> None:
        self.feeder = feeder

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        """The process of a worker is gone."""
        self.feeder.report_death(trial.trial_id, explain_death(trial.error_file))


class PoolStopper(tune.Stopper):
    """Ends all workers when the feeder is through, and when the dispatcher says that all ends at once."""

    def __init__(self, feeder: Feeder) -> None:
        self.feeder = feeder

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, *_trial_and_result: Any) -> bool:
        """No worker is stopped by its result."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over."""
        return self.feeder.ended.is_set() or self.feeder.dispatcher.must_end_now()
