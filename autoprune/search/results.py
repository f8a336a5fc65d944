"""Results: a study for those who work in Python: tables, the model for a loss or a cost, the model itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.errors import InputError
from autoprune.study import choosing
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.folder import load_study as read_study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome, Proposal

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from autoprune.tasks import Task


@dataclass(frozen=True, repr=False)
class Results:
    """A study as its folder holds it.

    Fields:
        study: its configuration and logs, as values.
        task: of a study that was begun with one.
    """

    study: Study
    task: Task | None = None

    def trials(self) -> pd.DataFrame:
        """A row per trial, in the order in which they ended; the recipe has columns such as `recipe.training.lr`."""
        from autoprune.analysis.report.frames import trials_frame

        return trials_frame(self.study)

    def front(self, *, searched: bool = False) -> pd.DataFrame:
        """A row per member of the front, cheapest first, with the columns of `trials`.

        Members that `finish` has trained again have the numbers of the model that is kept of them since then, and
        columns for the metric on the test split, `test_accuracy`, and for whether it is so, `trained_again`.

        Args:
            searched: as the search left them.
        """
        from autoprune.analysis.report.frames import trials_frame

        members = choosing.members(self.study, searched=searched)
        table = trials_frame(dataclasses.replace(self.study, outcomes=tuple(members))).dropna(axis=1, how="all")
        table[f"test_{self.metric.name}"] = [member.test_metric for member in members]
        table["trained_again"] = [member.member is not None for member in members]
        return table

    def best(
        self,
        *,
        within: float | None = None,
        metric: float | None = None,
        max_flops: float | None = None,
        max_params: float | None = None,
        max_activations: float | None = None,
        max_latency: float | None = None,
        max_latency_ms: float | None = None,
        searched: bool = False,
    ) -> Outcome:
        """The member of the front for a loss or a cost, as `autoprune choose` picks it; the knee if nothing is said.

        Args:
            within: points that it may lose to the dense model: the cheapest that does; hundredths where the metric's
                unit is `%`, else of its own unit.
            metric: what it has to reach: the cheapest that does.
            max_flops, max_params, max_activations, max_latency: ratios to the dense model: the best of at most that.
            max_latency_ms: the same in milliseconds.
            searched: as the search left it, whatever `finish` has trained.

        Raises:
            InputError: nothing fits, the front is empty, or `within` and `metric` are both given.
        """
        if within is not None and metric is not None:
            raise InputError("within and metric say the same", where="best", allowed="one of them")
        least = metric if within is None else choosing.metric_within(self.study, within)
        given = {"metric": least, "flops": max_flops, "params": max_params, "activations": max_activations}
        given |= {"latency": max_latency, "latency_ms": max_latency_ms}
        limits = {name: limit for name, limit in given.items() if limit is not None}
        return choosing.choose(self.study, limits, searched=searched)

    def load(self, trial: int | Outcome) -> nn.Module:
        """The pruned model of a trial, in eval mode on the CPU; of one that was trained again, as it is since then.

        Args:
            trial: its number, or what `best` gave.

        Raises:
            InputError: its model was not kept, or there is no such trial.
        """
        from autoprune.export.study_model import load_model
        from autoprune.tasks import load_task

        task = load_task(self.config["task"]) if self.task is None else self.task
        return load_model(self.study, trial, task)

    def __repr__(self) -> str:
        """One line: where it lies, what has ended, what the front is."""
        members, ended = self.study.front, len(self.outcomes)
        found = f"study {str(self.folder.path)!r}: {ended} trial{'' if ended == 1 else 's'}"
        if not members:
            return f"<{found}, no front>"
        knee, cost = choosing.choose(self.study, {}), self.study.tradeoff.costs[0]
        reached = f"{self.metric.name} {self.metric.shown(knee.metric or 0.0)} at {knee.costs[cost] or 0.0:.1%} {cost}"
        return f"<{found}, {len(members)} on the front, knee: {reached}>"

    @property
    def folder(self) -> StudyFolder:
        """The names of its files."""
        return self.study.folder

    @property
    def config(self) -> Mapping[str, Any]:
        """Its space file with what the search has added."""
        return self.study.config

    @property
    def metric(self) -> MetricSpec:
        """What models are judged by."""
        return self.study.metric

    @property
    def dense_metric(self) -> float | None:
        """The metric of the dense model on the validation split, before the first trial."""
        return self.study.dense_metric

    @property
    def proposals(self) -> Sequence[Proposal]:
        """The recipes that were handed out, in their order."""
        return self.study.proposals

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """What the trials gave, in the order in which they ended."""
        return self.study.outcomes

    @property
    def finalists(self) -> Sequence[Outcome]:
        """What was trained again, see `finish`."""
        return self.study.finalists


def load_study(folder: str | Path, *, task: Task | None = None) -> Results:
    """The study of a folder.

    Args:
        folder: written by `search`.
        task: of a study that was begun with one; only `Results.load` needs it.

    Raises:
        InputError: there is no study in the folder, or its configuration or a line of a log is not what it should be.
    """
    return Results(read_study(folder), task)
