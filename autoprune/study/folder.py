"""Study: the folder that holds all outcomes. The only place that knows its file names."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoprune.errors import InputError, brief_repr
from autoprune.study.config import OBJECTIVES
from autoprune.study.constraints import Constraints
from autoprune.study.front_timings import FrontTiming, read_timings, with_times_of_members, with_timings
from autoprune.study.log import read_lines, unique_by_number
from autoprune.study.metric import MetricSpec, read_metric
from autoprune.study.outcome import Outcome, Proposal, RecipeReader, check_numbers
from autoprune.study.pareto import front
from autoprune.study.tradeoff import COSTS, Tradeoff


@dataclass(frozen=True)
class StudyFolder:
    """The only place that knows the file names of a study."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved space file, with everything a resumed search needs."""
        return self.path / "study.yaml"

    def check_there(self) -> None:
        """Raise `OSError` unless the study is there: a folder that is mounted may be gone, and leave an empty one."""
        self.config.stat()

    @property
    def proposals(self) -> Path:
        """Recipes handed out, one JSON object a line."""
        return self.path / "proposals.jsonl"

    @property
    def outcomes(self) -> Path:
        """Recipes ended, one JSON object a line."""
        return self.path / "outcomes.jsonl"

    @property
    def paused(self) -> Path:
        """Trials that wait or waited at a rung, one JSON object a line and rung."""
        return self.path / "paused.jsonl"

    @property
    def states(self) -> Path:
        """The checkpoints of paused trials, one folder each."""
        return self.path / "states"

    @property
    def shared(self) -> Path:
        """What several trials need, see `trial.cache`; may be removed at any time."""
        return self.path / "shared"

    @property
    def models(self) -> Path:
        """One artefact folder per completed trial that was on the front when it ended."""
        return self.path / "models"

    @property
    def finalists(self) -> Path:
        """Members of the front that were trained again, one JSON object a line: see `finalists.py`."""
        return self.path / "finalists.jsonl"

    @property
    def final_models(self) -> Path:
        """One artefact folder per member, by the number of its finalist that is best on the validation split."""
        return self.path / "finalists"

    @property
    def final_states(self) -> Path:
        """The checkpoints of finalists whose workers were taken away, one folder each."""
        return self.path / "finalists_states"

    @property
    def timings(self) -> Path:
        """What models of the front take, timed when the search had ended; see `front_timings.py`."""
        return self.path / "timings.jsonl"

    @property
    def progress(self) -> Path:
        """How far the search is, see `progress.SearchState`; for those who watch, no search reads it."""
        return self.path / "progress.json"

    @property
    def optuna_journal(self) -> Path:
        """The search as an Optuna study, made from the logs; for optuna-dashboard, no search reads it."""
        return self.path / "optuna_journal.log"

    @property
    def pareto(self) -> Path:
        """The front as a table."""
        return self.path / "pareto.csv"

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.path / "report.html"

    @property
    def comparison(self) -> Path:
        """The report with other studies or tables laid over it."""
        return self.path / "comparison.html"


@dataclass(frozen=True)
class Study:
    """A study folder as it was when it was read: its configuration and its logs, in the order they were written.

    Fields:
        outcomes: with the latencies of `timings`, what models of the front took when the search had ended.
        unread: fields of its logs that this version does not know and has left out, each with its place.
    """

    folder: StudyFolder
    config: Mapping[str, Any]
    proposals: tuple[Proposal, ...]
    outcomes: tuple[Outcome, ...]
    paused: tuple[Outcome, ...] = ()
    finalists: tuple[Outcome, ...] = ()
    unread: tuple[str, ...] = ()
    timings: Mapping[int, FrontTiming] = field(default_factory=dict)

    @functools.cached_property
    def front(self) -> Sequence[Outcome]:
        """The outcomes that no other dominates in the study's objectives, see `pareto.front`; worked out once."""
        return tuple(front(self.outcomes, self.tradeoff))

    @functools.cached_property
    def metric(self) -> MetricSpec:
        """What models are judged by; accuracy in a study that does not say."""
        return _metric_of(self.folder, self.config)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the study trades off: the name of the metric and the names of costs."""
        given = self.config.get("objectives", OBJECTIVES)
        return tuple(name if name in COSTS else self.metric.name for name in given)

    @functools.cached_property
    def tradeoff(self) -> Tradeoff:
        """The same as fronts compare it, with the limit on the metric."""
        limits = Constraints(metric=(self.config.get("constraints") or {}).get("metric"))
        costs = tuple(name for name in self.objectives if name in COSTS)
        return Tradeoff(metric=self.metric, costs=costs, limit=limits.metric_limit(self.metric))

    @property
    def dense_metric(self) -> float | None:
        """The metric of the dense model on the validation split, as measured before the first trial."""
        found: float | None = (self.config.get("dense") or {}).get(self.metric.name)
        return found

    def unfinished(self) -> tuple[Proposal, ...]:
        """Proposals without an outcome: what a resumed search runs again."""
        ended = {outcome.id for outcome in self.outcomes}
        return tuple(proposal for proposal in self.proposals if proposal.id not in ended)


def load_study(folder: str | Path) -> Study:
    """Read a study folder.

    Raises:
        InputError: there is no study in the folder, or its configuration or a line of a log is not what it should be.
    """
    from autoprune.study.stored_config import read_config  # YAML, here alone: importing this stays cheap for workers

    paths = StudyFolder(Path(folder))
    if not paths.config.is_file():
        raise InputError(
            f"no study in {brief_repr(str(folder))}",
            allowed="a folder written by `autoprune search`, with study.yaml inside",
        )
    config = read_config(paths.config)
    recipe, metric = RecipeReader(), _metric_of(paths, config)
    unread: list[str] = []

    def entries_of(log: Path) -> Iterator[tuple[int, Outcome]]:
        for n, line in read_lines(log):
            outcome = Outcome.from_json(line, f"{log}:{n}", recipe, metric, unread)
            yield n, check_numbers(outcome, metric, f"{log}:{n}")

    lines = read_lines(paths.proposals)
    proposed = ((n, Proposal.from_json(line, f"{paths.proposals}:{n}", recipe, unread)) for n, line in lines)
    proposals = unique_by_number(proposed, paths.proposals)
    timings = read_timings(paths.timings)
    outcomes = with_timings(unique_by_number(entries_of(paths.outcomes), paths.outcomes), timings)
    return Study(
        paths,
        config,
        proposals,
        outcomes,
        tuple(outcome for _, outcome in entries_of(paths.paused)),
        with_times_of_members(unique_by_number(entries_of(paths.finalists), paths.finalists), outcomes),
        tuple(unread),
        timings,
    )


def _metric_of(folder: StudyFolder, config: Mapping[str, Any]) -> MetricSpec:
    return read_metric(config.get("metric") or {}, f"{folder.config}: metric")
