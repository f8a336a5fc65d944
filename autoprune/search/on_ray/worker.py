"""The Tune trainable: an actor that runs recipes and lives as long as the search."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from autoprune.files import fill, read_files
from autoprune.search.on_ray.settings import BARRIER_SECONDS, TIMED_OUT
from autoprune.search.on_ray.study_actor import DeskStore
from autoprune.search.running.evaluate import Evaluation, Evaluator, Leg, OpenEvaluator, describe, failed, run_leg
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.outcome import Outcome, Proposal, Rung


class RecipeTrainable(tune.Trainable):
    """One actor that runs recipes; task, data and dense model are loaded once, in `setup`."""

    def setup(
        self,
        config: dict[str, Any],
        open_evaluator: OpenEvaluator,
        clock: StudyClock,
        desk: Any,
        trial_timeout: float,
    ) -> None:
        """Open the evaluator and wait for the other workers."""
        self.request, self.clock, self.desk, self.trial_timeout = config, clock, desk, trial_timeout
        self.evaluator, self.refusal = None, ""
        try:
            self.evaluator = open_evaluator(clock, DeskStore(desk))
        except Exception as error:  # noqa: BLE001 - a worker that raises here is started again and again, without end
            self.refusal = f"the worker on {socket.gethostname()} cannot load the task: {describe(error)}"
        ray.get(desk.arrive.remote())
        end = time.monotonic() + BARRIER_SECONDS
        while not ray.get(desk.complete.remote()) and time.monotonic() < end:
            time.sleep(0.05)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next recipe."""
        self.request = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the recipe; models go to the desk before the outcome goes to the driver."""
        leg = Leg.from_plain(self.request)
        proposal = leg.proposal
        if self.refusal or self.evaluator is None:
            return self._refuse(proposal, self.refusal)
        if ray.get(self.desk.has_expired.remote(proposal.id)):
            minutes = self.trial_timeout / 60
            return self._refuse(proposal, f"no end after {minutes:g} minutes (resources.trial_timeout_minutes)")
        with self._watchdog(proposal.id):
            return self._result(self._run(self.evaluator, leg).outcome)

    def _run(self, evaluator: Evaluator, leg: Leg) -> Evaluation:
        number = leg.proposal.id
        with tempfile.TemporaryDirectory(prefix="autoprune-trial-") as folder:
            if leg.resumed:
                fill(Path(folder), ray.get(self.desk.paused.remote(number)))
            evaluation = run_leg(evaluator, leg, self._report, self.clock, Path(folder), _worker())
            if evaluation.outcome.status == "paused":
                ray.get(self.desk.pause.remote(number, read_files(Path(folder))))
        if evaluation.files:
            ray.get(self.desk.store.remote(number, dict(evaluation.files)))
        return evaluation

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a recipe that is cut short starts again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def _report(self, _rung: Rung, _ratios: Mapping[str, float]) -> bool:
        until = self.request["until"]
        return until is None or self.clock.now() < until

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        return {"outcome": replace(outcome, worker=_worker()).to_json(), "done": True}

    def _refuse(self, proposal: Proposal, error: str) -> dict[str, Any]:
        now = self.clock.now()
        return self._result(failed(proposal, error, started=now, finished=now).outcome)

    @contextmanager
    def _watchdog(self, number: int) -> Iterator[None]:
        """End this process if a recipe hangs: Tune waits for ever. The next attempt hears of it from the desk."""

        def end() -> None:
            ray.get(self.desk.expire.remote(number))
            os._exit(TIMED_OUT)

        timer = threading.Timer(self.trial_timeout, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _worker() -> str:
    """What reports call this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
