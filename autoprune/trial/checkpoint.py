"""Trial checkpoint: what a trial leaves on disk so that another process can go on with it.

After the cut that is the pruned model as an artefact, and what the trial knows of itself. Beside them lies the
checkpoint of the training that runs (`training.fit`); the three together are all that another process needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.files import written_whole
from autoprune.schema import read, to_plain
from autoprune.study.outcome import Rung

CUT, PROGRESS = "cut", "progress.json"


@dataclass(frozen=True, kw_only=True)
class CutRecord:
    """What is known of the cut.

    Fields:
        spent: training images seen before it.
        grouped: what grouped convolutions lost, see `Allocation.grouped`; never `either`.
        ratios: costs relative to the dense model.
        latency_ms: of a forward pass, if it was measured.
        notes: of the method.
    """

    spent: int
    grouped: str
    ratios: dict[str, float]
    notes: dict[str, Any]
    latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProgressRecord:
    """How far a trial has come: when it began on the study's clock, its rungs, seconds per stage and in all."""

    started: float
    elapsed: float
    seconds: dict[str, float]
    rungs: tuple[Rung, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedCut:
    """A pruned model that was saved, and what is known of it; `ranks` names the layers that are decomposed."""

    model: nn.Module
    keep: Keep
    ranks: Mapping[str, int]
    record: CutRecord


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial's checkpoint; without a path nothing is saved and nothing is found.

    Fields:
        writes: False where another process of the trial saves for all.
    """

    path: Path | None
    writes: bool = True

    def of_stage(self, name: str) -> Path | None:
        """The file that the training of a stage is resumed from."""
        return None if self.path is None else self.path / f"{name}.pt"

    def save_progress(self, record: ProgressRecord) -> None:
        """Replace what was saved before."""
        if self.path is not None and self.writes:
            with written_whole(self.path / PROGRESS) as beside:
                beside.write_text(json.dumps(to_plain(record), allow_nan=False))

    def load_progress(self) -> ProgressRecord | None:
        """What was saved last, if anything."""
        if self.path is None or not (self.path / PROGRESS).exists():
            return None
        file = self.path / PROGRESS
        return read(ProgressRecord, json.loads(file.read_text()), str(file))

    def save_cut(self, model: nn.Module, graph: ChannelGraph, keep: Keep, record: CutRecord) -> None:
        """Save the pruned model; what stages before the cut left to resume from is needed no more."""
        if self.path is None or not self.writes:
            return
        artifact.save(self.path / CUT, model, graph, keep, info=to_plain(record))
        for checkpoint in self.path.glob("sparsify-*.pt"):
            checkpoint.unlink()

    def load_cut(self, dense: Callable[[], nn.Module]) -> SavedCut | None:
        """What `save_cut` saved; None before the cut.

        Args:
            dense: builds the model that was cut, see `artifact.load`.
        """
        if self.path is None or not (self.path / CUT).exists():
            return None
        folder = self.path / CUT
        described = artifact.describe(folder)
        record = read(CutRecord, described["info"], str(folder))
        keep, model = Keep.of(described["keep"]), artifact.load(folder, dense)
        return SavedCut(model=model, keep=keep, ranks=described["decomposed"], record=record)
