"""The driver's side of Tune: adapters between Tune's searcher, callbacks and stopper and the search."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from autoprune.search.on_ray.settings import ATTEMPTS
from autoprune.search.on_ray.study_actor import _open_desk
from autoprune.search.on_ray.worker import RecipeTrainable
from autoprune.search.running.evaluate import Leg, OpenEvaluator
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Runs


def _tune(session: Runs, open_evaluator: OpenEvaluator, workers: int, folder: Path) -> None:
    resources = session.config.resources
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    adapter = _Adapter(session)
    bound = tune.with_parameters(
        RecipeTrainable,
        open_evaluator=open_evaluator,
        clock=session.clock,
        desk=_open_desk(session.models, session.states, session.folder.shared, workers),
        trial_timeout=60 * resources.trial_timeout_minutes,
    )
    tuner = tune.Tuner(
        tune.with_resources(bound, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=adapter,
            scheduler=NewestFirst(),
            num_samples=-1,
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=tempfile.mkdtemp(prefix="tune-", dir=folder),
            verbose=0,
            callbacks=[_Watcher(adapter)],
            stop=_Stopper(session),
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner.fit()
    if not session.interrupted:
        for leg in list(adapter.live.values()):
            session.lost(leg.proposal, "stopped", "the search's time was over")


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


class _Adapter(Searcher):
    """The session as a Tune searcher. Tune pickles its searchers into its own snapshot, where this one has no state."""

    def __init__(self, session: Runs) -> None:
        super().__init__()
        self.session = session
        self.live: dict[str, Leg] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def set_search_properties(self, *_metric_mode_config: Any, **_spec: Any) -> bool:
        """Accept anything: the objectives are the session's business."""
        return True

    def suggest(self, trial_id: str) -> Any:
        leg = self.session.next()
        if leg is not None:
            self.live[trial_id] = leg
            return {**leg.to_plain(), "until": self.session.limits.until}
        # final: Tune waits for the running trials, and that is all; None: there may be more when one of them pauses
        return Searcher.FINISHED if self.session.finished_handing_out() else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error or not result or "outcome" not in result:
            return
        self.live.pop(trial_id, None)
        self.session.ended(Outcome.from_json(result["outcome"]))

    def crashed(self, trial_id: str, reason: str) -> None:
        """Tune has given up on a trial. What a method raises is an outcome, so the process itself came to its end."""
        leg = self.live.pop(trial_id, None)
        if leg is not None and not self.session.interrupted:
            self.session.lost(leg.proposal, "failed", f"the worker process died {ATTEMPTS} times: {reason}")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the logs in the study folder are the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""


class _Watcher(tune.Callback):
    """Tells the session of crashed trials and of the passing of time."""

    def __init__(self, adapter: _Adapter) -> None:
        self.adapter = adapter

    def on_step_end(self, **_info: Any) -> None:
        self.adapter.session.refresh()

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        self.adapter.crashed(trial.trial_id, _why_dead(trial.error_file))


class _Stopper(tune.Stopper):
    """Ends everything at once when the user says so, and when running trials had their grace and do not report."""

    def __init__(self, session: Runs) -> None:
        self.session = session

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, *_trial_and_result: Any) -> bool:
        """No trial is stopped by its result."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over."""
        return self.session.over()


def _why_dead(error_file: str) -> str:
    """The exception that ended a worker, as far as Ray knows: one that could not start says why, a crash does not."""
    text = Path(error_file).read_text(encoding="utf-8", errors="replace")
    said = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return said[-1][:300] if said else "it crashed, was killed for lack of memory, or its node went away"
