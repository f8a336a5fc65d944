"""A trial after its cut, on disk: the pruned model as an artefact, and what the trial knows of itself so far.

Beside them lies the checkpoint of its fine-tuning (`train.fit`); the three together are all that another process needs
to go on with the trial.
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
class Cut:
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
class Past:
    """What a trial has behind it: when it began on the study's clock, rungs, seconds per stage and in all."""

    started: float
    elapsed: float
    seconds: dict[str, float]
    rungs: tuple[Rung, ...]


def save_cut(scratch: Path, model: nn.Module, graph: ChannelGraph, keep: Keep, cut: Cut) -> None:
    """Keep the pruned model; what stages before the cut left to resume from is needed no more."""
    artifact.save(scratch / CUT, model, graph, keep, info=to_plain(cut))
    for checkpoint in scratch.glob("sparsify-*.pt"):
        checkpoint.unlink()


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A pruned model that was kept, and what is known of it; `ranks` names the layers that are decomposed."""

    model: nn.Module
    keep: Keep
    ranks: Mapping[str, int]
    cut: Cut


def load_cut(scratch: Path | None, dense: Callable[[], nn.Module]) -> Found | None:
    """What `save_cut` kept; None before the cut.

    Args:
        dense: builds the model that was cut, see `artifact.load`.
    """
    if scratch is None or not (scratch / CUT).exists():
        return None
    described = artifact.describe(scratch / CUT)
    cut = read(Cut, described["info"], str(scratch / CUT))
    keep = Keep.of(described["keep"])
    return Found(model=artifact.load(scratch / CUT, dense), keep=keep, ranks=described["decomposed"], cut=cut)


def save_past(scratch: Path, past: Past) -> None:
    """Keep what the trial has behind it; replaces what was kept before."""
    with written_whole(scratch / PROGRESS) as beside:
        beside.write_text(json.dumps(to_plain(past), allow_nan=False))


def load_past(scratch: Path | None) -> Past | None:
    """What was kept last, if anything."""
    if scratch is None or not (scratch / PROGRESS).exists():
        return None
    return read(Past, json.loads((scratch / PROGRESS).read_text()), str(scratch / PROGRESS))
