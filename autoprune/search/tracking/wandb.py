"""Weights & Biases: a group per study, a run per trial."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from autoprune.errors import InputError
from autoprune.schema import choices
from autoprune.study.outcome import Outcome
from autoprune.study.tracker import TrackedStudy, Tracker, attributes, final_numbers, hyper_parameters, run_name


@dataclass(frozen=True, kw_only=True)
class WandB(Tracker):
    """A run per trial, with its hyper-parameters, the metric at every rung by images, and what came of it.

    Fields:
        project: where the runs are; they are grouped by the name of the study's folder.
        entity: user or team; by default the one that is logged in.
        mode: `offline` writes into `wandb/` of the study only, for `wandb sync`; by default $WANDB_MODE, else online.
    """

    package: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"

    project: str = "autoprune"
    entity: str | None = None
    mode: str | None = field(default=None, metadata=choices("online", "offline"))

    def open(self, study: TrackedStudy) -> Group:
        """See `Tracker.open`."""
        return Group(study, {"project": self.project, "entity": self.entity, "mode": self.mode})


class Group:
    """The runs of a study.

    Args:
        place: arguments of `wandb.init` that say where they are.
    """

    def __init__(self, study: TrackedStudy, place: dict[str, Any]) -> None:
        import wandb

        self._study, self._place = study, place
        self._settings = wandb.Settings(silent=True, console="off")  # the terminal is the view's
        online = (place["mode"] or os.environ.get("WANDB_MODE", "online")) == "online"
        if online and not wandb.login(prompt=False, verify=False):  # it would ask for one, on the view's terminal
            raise InputError("no API key", where="wandb", allowed="`wandb login` before, or mode: offline")

    def record(self, outcome: Outcome) -> None:
        """See `TrackerRun.record`."""
        import wandb

        run = wandb.init(
            **self._place,
            group=self._study.name,
            name=run_name(outcome),
            config=hyper_parameters(outcome),
            dir=str(self._study.folder.path.resolve()),  # by default the current folder
            reinit="create_new",
            settings=self._settings,
        )
        metric = self._study.tradeoff.metric
        for rung in outcome.rungs:
            run.log({metric.name: rung.metric}, step=rung.images)
        run.summary.update({**final_numbers(outcome, metric), **attributes(outcome)})
        run.finish(exit_code=1 if outcome.status == "failed" else 0)

    def close(self) -> None:
        """Every run has ended."""
