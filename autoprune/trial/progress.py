"""What a running trial knows of itself: seconds per stage, rungs, what was cut; an Outcome at any time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from autoprune.engine.cost import Cost
from autoprune.methods import Note
from autoprune.recipe import Recipe
from autoprune.study.outcome import Outcome, Rung
from autoprune.trial.checkpoint import ProgressRecord
from autoprune.trial.remains import Remains
from autoprune.trial.stages import Selected


@dataclass(frozen=True, kw_only=True, eq=False)
class CutSoFar:
    """What all cuts of a trial together left; the fields are those of an Outcome.

    Fields:
        latency: `latency_ms`, `latency_low` and `latency_high`, if it was measured.
    """

    remains: Remains | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Note] = field(default_factory=dict)

    def of(self, remains: Remains, dense: Cost) -> CutSoFar:
        """The same with what is left now."""
        return replace(self, remains=remains, ratios=remains.ratios(dense))

    def after(self, selected: Selected, dense: Cost) -> CutSoFar:
        """After one more cut."""
        left = self.of(selected.remains.after(selected.keep), dense)
        return replace(left, notes={**self.notes, **selected.notes})

    def noted(self, name: str, note: Note) -> CutSoFar:
        """The same with one note more."""
        return replace(self, notes={**self.notes, name: note})

    @property
    def costs(self) -> dict[str, float | None]:
        """What constraints may limit."""
        return {**self.ratios, "latency_ms": self.latency.get("latency_ms")}


@dataclass
class Progress:
    """The record of a running trial. `run.py` writes it, and nobody else.

    Fields:
        began: when the trial would have begun had it run without a break, on the clock of `time.perf_counter`.
        seconds: per stage.
        stopped: ended by whoever was told of its last rung.
        broken: the constraint that ended it.
        tested: the metric on the test split.
    """

    began: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)
    cut: CutSoFar = field(default_factory=CutSoFar)
    stopped: bool = False
    broken: str = ""
    tested: float | None = None

    def take_over(self, record: ProgressRecord) -> None:
        """Go on counting where an earlier process ended."""
        self.began -= record.elapsed
        self.seconds, self.rungs = dict(record.seconds), list(record.rungs)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for this stage, whether it fails or not."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def elapsed(self) -> float:
        """Seconds that the trial has taken; breaks do not count."""
        return time.perf_counter() - self.began

    def has_passed(self, share: float) -> bool:
        """Whether this rung was measured, and reported, by an earlier process."""
        return any(rung.share == share for rung in self.rungs)

    def add_rung(self, share: float, images: int, metric: float) -> Rung:
        """Note a rung that was measured now."""
        rung = Rung(share=share, images=images, metric=metric, seconds=self.elapsed())
        self.rungs.append(rung)
        return rung

    def record(self, started: float) -> ProgressRecord:
        """What another process needs to go on counting."""
        return ProgressRecord(
            started=started, elapsed=self.elapsed(), seconds=dict(self.seconds), rungs=tuple(self.rungs)
        )

    def outcome(self, recipe: Recipe, error: str | None) -> Outcome:
        """What the recipe gave so far; `error` says why it failed."""
        status = "failed" if error else "stopped" if self.stopped or self.broken else "completed"
        completed, remains = status == "completed", self.cut.remains
        ratios: dict[str, Any] = {f"{name}_ratio": value for name, value in self.cut.ratios.items()}
        return Outcome(
            id=0,
            recipe=recipe,
            status=status,
            metric=self.rungs[-1].metric if completed else None,
            rungs=tuple(self.rungs),
            widths=remains.keep.widths(remains.graph) if remains is not None else {},
            seconds=self.seconds,
            notes=self.cut.notes,
            seed=recipe.seed,
            error=error or self.broken or None,
            **self.cut.latency,
            test_metric=self.tested if completed else None,
            **ratios,
        )
