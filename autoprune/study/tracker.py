"""Tracker: what hears of every trial of a search that has ended, in the driver alone. Trackers are plug-ins.

A package of its own adds one by an entry point, in its pyproject.toml:

    [project.entry-points."autoprune.trackers"]
    notebook = "my_package:Notebook"          # a subclass of autoprune.study.tracker.Tracker

`autoprune.testing.TrackerContract` is a class of tests that it should pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from autoprune.study.folder import StudyFolder
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome
from autoprune.study.tradeoff import Tradeoff


@dataclass(frozen=True, kw_only=True)
class TrackedStudy:
    """A study as a tracker needs it.

    Fields:
        folder: of the study; a tracker that writes files writes them into a folder of its own in there.
        tradeoff: its metric and its costs.
        known: outcomes that the logs hold already. An earlier driver has told of them, as far as it came.
        origin: when the study began, in seconds since 1970; the times of outcomes count from there.
    """

    folder: StudyFolder
    tradeoff: Tradeoff
    known: tuple[Outcome, ...]
    origin: float

    @property
    def name(self) -> str:
        """What other programs call the study: the name of its folder."""
        return self.folder.path.resolve().name


class TrackerRun(Protocol):
    """A tracker at work. All of it runs in one thread, which is no other's; it may take its time, and may raise."""

    def record(self, outcome: Outcome) -> None:
        """A trial, or a training of a finalist (`Outcome.member`), has ended; its rungs are in the outcome."""

    def close(self) -> None:
        """The search is over."""


@dataclass(frozen=True, kw_only=True)
class Tracker(ABC):
    """Opens a run. What a space file may say of it are the fields of a frozen dataclass.

    Class attributes:
        package: what has to be installed, by the name that imports it; None = nothing.
        extra: installs that; None = the package is its own.
    """

    package: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None

    @abstractmethod
    def open(self, study: TrackedStudy) -> TrackerRun:
        """Begin to hear of a search."""


def run_name(outcome: Outcome) -> str:
    """What a trial is called: `trial-17`; a finalist: `finalist-17-seed-2`, by the trial that it trains again."""
    if outcome.member is None:
        return f"trial-{outcome.id}"
    return f"finalist-{outcome.member}-seed-{outcome.recipe.seed}"


def hyper_parameters(outcome: Outcome) -> dict[str, bool | int | float | str]:
    """The recipe, flat: `method.name`, `target.flops`, `training.lr`; what it leaves open is left out."""
    return dict(_flat(outcome.recipe.to_dict(), ""))


def final_numbers(outcome: Outcome, metric: MetricSpec) -> dict[str, float]:
    """What came of it, by the names that logs use; what is not known is left out."""
    ratios = {name: getattr(outcome, name) for name in ("flops_ratio", "params_ratio", "activations_ratio")}
    found = {metric.name: outcome.metric, f"test_{metric.name}": outcome.test_metric, **ratios}
    found |= {"latency_ratio": outcome.latency_ratio, "latency_ms": outcome.latency_ms, "duration": outcome.duration}
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def attributes(outcome: Outcome) -> dict[str, str]:
    """How it ended, where it ran and what it went on from, as text."""
    found = {
        "status": outcome.status,
        "worker": outcome.worker,
        "control": "yes" if outcome.control else "",
        "parent": "" if outcome.recipe.parent is None else str(outcome.recipe.parent),
        "error": outcome.error or "",
    }
    return {name: text for name, text in found.items() if text}


def _flat(plain: Mapping[str, Any], path: str) -> Iterator[tuple[str, bool | int | float | str]]:
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        elif value is not None:
            yield f"{path}{key}", value if isinstance(value, (bool, int, float, str)) else str(value)
