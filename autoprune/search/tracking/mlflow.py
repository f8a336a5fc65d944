"""MLflow: an experiment per study, a run per trial."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from autoprune.study.outcome import Outcome
from autoprune.study.tracker import TrackedStudy, Tracker, attributes, final_numbers, hyper_parameters, run_name

#: How a run ends, in MLflow's words, by the status of its trial.
STATUS = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True, kw_only=True)
class MLflow(Tracker):
    """A run per trial, with its hyper-parameters, the metric at every rung by images, and what came of it.

    Fields:
        uri: of the server or data base; by default $MLFLOW_TRACKING_URI, else a data base in `mlflow/` of the study.
        experiment: its name; by default that of the study's folder.
    """

    package: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"

    uri: str | None = None
    experiment: str | None = None

    def open(self, study: TrackedStudy) -> Experiment:
        """See `Tracker.open`."""
        return Experiment(study, self.uri or os.environ.get("MLFLOW_TRACKING_URI"), self.experiment or study.name)


class Experiment:
    """The runs of a study.

    Args:
        uri: None = a data base in the study folder.
        name: of the experiment, which is made if there is none.
    """

    def __init__(self, study: TrackedStudy, uri: str | None, name: str) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
        folder = study.folder.path.resolve() / "mlflow"
        if uri is None:
            folder.mkdir(exist_ok=True)
        self._study, self._client = study, MlflowClient(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
        known = self._client.get_experiment_by_name(name)
        artifacts = (folder / "artifacts").as_uri() if uri is None else None
        self._experiment = known.experiment_id if known else self._client.create_experiment(name, artifacts)

    def record(self, outcome: Outcome) -> None:
        """See `TrackerRun.record`."""
        from mlflow.entities import Param

        run = self._client.create_run(
            self._experiment,
            start_time=self._milliseconds(outcome.started),
            tags=attributes(outcome),
            run_name=run_name(outcome),
        )
        params = [Param(_key(name), str(value)) for name, value in hyper_parameters(outcome).items()]
        self._client.log_batch(run.info.run_id, metrics=self._metrics(outcome), params=params)
        end = self._milliseconds(outcome.finished)
        self._client.set_terminated(run.info.run_id, STATUS[outcome.status], end)

    def close(self) -> None:
        """Every run has ended."""

    def _metrics(self, outcome: Outcome) -> list[Any]:
        from mlflow.entities import Metric

        metric, end = self._study.tradeoff.metric, self._milliseconds(outcome.finished)
        rungs = [(metric.name, rung.metric, rung.images) for rung in outcome.rungs]
        last = outcome.rungs[-1].images if outcome.rungs else 0
        final = [(name, value, last) for name, value in final_numbers(outcome, metric).items()]
        points = dict.fromkeys((*rungs, *final))  # the last rung is the end
        return [Metric(_key(name), value, end, step) for name, value, step in points]

    def _milliseconds(self, seconds: float) -> int:
        return round(1000 * (self._study.origin + seconds))


def _key(name: str) -> str:
    """A name with the letters that MLflow allows."""
    return re.sub(r"[^\w.\- :/]", "_", name, flags=re.ASCII)
