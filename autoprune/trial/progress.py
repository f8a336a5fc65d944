"""What a running trial knows of itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from autoprune import methods
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.recipe import Recipe
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.outcome import Rung
from autoprune.training.evaluate import evaluate
from autoprune.training.runtime import Runtime
from autoprune.trial import checkpoint
from autoprune.trial.shared import Bench

#: Called after every rung with the rung and the cost ratios; False ends the trial with status `stopped`.
Report = Callable[[Rung, dict[str, float]], bool]


@dataclass
class _Progress:
    """What a running trial knows of itself; turned into an Outcome whatever happens."""

    began: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)
    keep: Keep | None = None
    graph: ChannelGraph | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    latency_ms: float | None = None
    notes: dict[str, methods.Note] = field(default_factory=dict)
    stopped: bool = False
    broken: str = ""
    tested: float | None = None

    def take_over(self, past: checkpoint.Past) -> None:
        """Go on counting where an earlier process ended."""
        self.began -= past.elapsed
        self.seconds, self.rungs = dict(past.seconds), list(past.rungs)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def elapsed(self) -> float:
        return time.perf_counter() - self.began


@dataclass(frozen=True, eq=False)
class _Job:
    """What the stages of one trial share."""

    recipe: Recipe
    bench: Bench
    report: Report
    scratch: Path | None
    progress: _Progress
    started: float
    constraints: Constraints
    latency: Latency | None

    def checkpoint(self, stage: str) -> Path | None:
        """Where a stage's training is resumed from."""
        return self.scratch / f"{stage}.pt" if self.scratch else None

    def measure(self, model: nn.Module, runtime: Runtime) -> float:
        """Validation accuracy."""
        with self.progress.stage("evaluate"):
            return evaluate(model, self.bench.task.validation, self.bench.task, runtime)

    def test(self, model: nn.Module) -> None:
        """Note the accuracy on the test split: nothing is decided any more."""
        with self.progress.stage("test"):
            self.progress.tested = evaluate(model, self.bench.task.test, self.bench.task, self.bench.exact)

    def passed(self, share: float) -> bool:
        """Whether this rung was measured, and reported, by an earlier process."""
        return any(rung.share == share for rung in self.progress.rungs)

    def rung(self, share: float, images: int, accuracy: float) -> bool:
        """Note a rung and ask whether to go on."""
        progress = self.progress
        progress.rungs.append(Rung(share=share, images=images, accuracy=accuracy, seconds=progress.elapsed()))
        if self.scratch is not None:
            checkpoint.save_past(self.scratch, self.past())
        progress.stopped = not self.report(progress.rungs[-1], progress.ratios)
        return not progress.stopped

    def past(self) -> checkpoint.Past:
        """What the trial has behind it."""
        progress = self.progress
        return checkpoint.Past(
            started=self.started,
            elapsed=progress.elapsed(),
            seconds=dict(progress.seconds),
            rungs=tuple(progress.rungs),
        )
