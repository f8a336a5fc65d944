"""Trial checkpoint: what a trial leaves on disk so that another process can go on with it.

After the cut that is the pruned model as an artefact, and what the trial knows of itself. Beside them lies the
checkpoint of the training that runs (`training.fit`); the three together are all that another process needs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.files import written_whole
from autoprune.schema import read, to_plain
from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.study.outcome import Rung, name_metric, unname_metric
from autoprune.trial.pruned_model import PrunedModel, load_pruned, save_pruned
from autoprune.trial.remains import Remains
from autoprune.trial.shared import SharedState

CUT, PROGRESS = "cut", "progress.json"


@dataclass(frozen=True, kw_only=True)
class CutRecord:
    """What is known of the cut, or of a start that needed none.

    Fields:
        spent: training images that the trial has seen before it.
        ratios: costs relative to the dense model.
        latency_ms: of a forward pass, if it was measured.
        latency_low, latency_high: the interval of its ratio to the dense model's.
        notes: of the method.
    """

    spent: int
    ratios: dict[str, float]
    notes: dict[str, Any]
    latency_ms: float | None = None
    latency_low: float | None = None
    latency_high: float | None = None

    @property
    def latency(self) -> dict[str, float]:
        """Those of the three that were measured, by name."""
        found = {"latency_ms": self.latency_ms, "latency_low": self.latency_low, "latency_high": self.latency_high}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ProgressRecord:
    """How far a trial has come: when it began on the study's clock, its rungs, seconds per stage and in all."""

    started: float
    elapsed: float
    seconds: dict[str, float]
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial's checkpoint; without a path nothing is saved and nothing is found.

    Fields:
        writes: False where another process of the trial saves for all.
        metric: of the task; rungs are saved with its name.
    """

    path: Path | None
    writes: bool = True
    metric: MetricSpec = ACCURACY

    def of_stage(self, name: str) -> Path | None:
        """The file that the training of a stage is resumed from."""
        return None if self.path is None else self.path / f"{name}.pt"

    def save_progress(self, record: ProgressRecord) -> None:
        """Replace what was saved before."""
        if self.path is not None and self.writes:
            with written_whole(self.path / PROGRESS) as beside:
                beside.write_text(json.dumps(name_metric(to_plain(record), self.metric), allow_nan=False))

    def load_progress(self) -> ProgressRecord | None:
        """What was saved last, if anything."""
        if self.path is None or not (self.path / PROGRESS).exists():
            return None
        file = self.path / PROGRESS
        return read(ProgressRecord, unname_metric(json.loads(file.read_text()), self.metric, str(file)), str(file))

    def save_cut(self, model: nn.Module, remains: Remains, record: CutRecord) -> None:
        """Save the pruned model; what stages before the cut left to resume from is needed no more."""
        if self.path is None or not self.writes:
            return
        save_pruned(self.path / CUT, model, remains, to_plain(record))
        for checkpoint in self.path.glob("sparsify-*.pt"):
            checkpoint.unlink()

    def load_cut(self, shared: SharedState) -> tuple[PrunedModel, CutRecord] | None:
        """What `save_cut` saved; None before the cut."""
        if self.path is None or not (self.path / CUT).exists():
            return None
        pruned = load_pruned(self.path / CUT, shared)
        return pruned, read(CutRecord, pruned.info, str(self.path / CUT))
