"""Progress: a search at one moment, for a view that shows it, in its own process or in another one that watches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from autoprune.errors import InputError
from autoprune.schema import choices, read, to_plain
from autoprune.study.log import parse_line
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome
from autoprune.study.tradeoff import Tradeoff

#: What the driver of a search is doing: it works, or it has come to an end of its own, the user's or an error's making.
RUNNING, ENDED, INTERRUPTED, FAILED = "running", "ended", "interrupted", "failed"


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One member of the front so far; `costs` are those that the study trades off, relative to the dense model."""

    id: int
    method: str
    metric: float
    costs: Mapping[str, float]

    @classmethod
    def of(cls, outcome: Outcome, tradeoff: Tradeoff) -> FrontPoint:
        """An outcome that may be on a front of the study."""
        costs = {name: outcome.costs[name] or 0.0 for name in tradeoff.costs}
        assert outcome.metric is not None, "a member of a front has completed"
        return cls(id=outcome.id, method=outcome.recipe.method.name, metric=outcome.metric, costs=costs)


@dataclass(frozen=True, kw_only=True)
class GoalProgress:
    """How far a search is that looks for the cheapest model which loses little, see `config.Goal`.

    Fields:
        text: what is looked for: `within 1 point of the dense model`.
        cost_name: what cheap means.
        id, cost: trial and cost ratio of the cheapest one so far; None = there is none yet.
        idle: pruned trials that have completed since the cost last fell.
        patience: so many of them end the search.
    """

    text: str
    cost_name: str
    id: int | None
    cost: float | None
    idle: int
    patience: int

    @property
    def settled(self) -> bool:
        """Whether the search is over."""
        return self.id is not None and self.idle >= self.patience

    def sentence(self) -> str:
        """In words, for a view."""
        if self.id is None or self.cost is None:
            return f"goal: {self.text}; none yet"
        lately = f"no cheaper for {self.idle} of {self.patience} trials"
        return f"goal: {self.text}; trial {self.id} with {self.cost:.1%} of the {self.cost_name}, {lately}"


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """A search at one moment, for a view that shows it.

    Fields:
        done: outcomes with status completed.
        paused: trials that wait at a rung.
        seconds: since the study began.
        eta: seconds until the budget is used up, as far as one can tell; None = not yet.
        used: share of the budget, the largest if there are several; None = nothing is counted.
        metric: what models are judged by.
        dense_metric: of the dense model.
        front: cheapest first.
        latest: outcomes since the last update, oldest first.
        workers: how many there are, and how trials come to them; None = trials run in the driver's process.
        dashboard: where Ray's dashboard is, as the driver's machine sees it, if it runs.
        warnings: what went wrong beside the search, which goes on.
        stopping: whether the user has ended it, and what runs is being ended.
        goal: what is looked for, and how far that is; None = nothing in particular.
    """

    done: int
    running: int
    paused: int
    stopped: int
    failed: int
    seconds: float
    eta: float | None
    used: float | None
    metric: MetricSpec
    dense_metric: float | None
    front: tuple[FrontPoint, ...]
    latest: tuple[Outcome, ...] = ()
    workers: str | None = None
    dashboard: str | None = None
    warnings: tuple[str, ...] = ()
    stopping: bool = False
    goal: GoalProgress | None = None

    @property
    def ended(self) -> int:
        """How many trials have ended, in whatever way."""
        return self.done + self.stopped + self.failed


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """What the driver of a search tells other processes of itself, in `progress.json`; no search ever reads it.

    Fields:
        state: `running`, or how it came to an end: `ended`, `interrupted` by the user, `failed`.
        error: why it was interrupted or failed.
        progress: without `latest`, which the logs have; None until there is something to show.
    """

    state: str = field(metadata=choices(RUNNING, ENDED, INTERRUPTED, FAILED))
    error: str | None = None
    progress: StudyProgress | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        progress = None if self.progress is None else to_plain(replace(self.progress, latest=()))
        return json.dumps({"state": self.state, "error": self.error, "progress": progress}, allow_nan=False)

    @classmethod
    def of_folder(cls, path: Path) -> SearchState:
        """What `progress.json` at that path holds.

        Raises:
            InputError: there is no such file, or it holds something else.
            OSError: it cannot be read.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            allowed = "the folder of a search that runs, or has run, with this version"
            raise InputError("no search has told here how far it is", where=str(path), allowed=allowed) from None
        return read(cls, parse_line(text, str(path)), str(path))


def count_ended(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many outcomes there are of each status, by the fields of `StudyProgress`."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {"done": counts["completed"], "stopped": counts["stopped"], "failed": counts["failed"]}


class View(Protocol):
    """Shows progress; `update` is called at most twice a second, and once at the end."""

    def update(self, progress: StudyProgress) -> None:
        """Show it."""

    def say(self, text: str) -> None:
        """Show what is being done where nothing is counted, before the first trial and after the last."""

    def close(self) -> None:
        """The search is over, or has failed."""
