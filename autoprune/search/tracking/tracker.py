"""Tracker: what hears of every trial of a search that has ended, in the driver alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from autoprune.study.folder import StudyFolder
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


class Tracker(ABC):
    """Opens a run. Options of a space file are the fields of a frozen dataclass."""

    @abstractmethod
    def open(self, study: TrackedStudy) -> TrackerRun:
        """Begin to hear of a search."""
