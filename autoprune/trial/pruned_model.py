"""A pruned model that a trial left, with what another trial needs to cut it once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.low_rank import decomposed
from autoprune.errors import ArtifactError
from autoprune.trial.remains import Remains
from autoprune.trial.shared import SharedState


@dataclass(frozen=True, kw_only=True, eq=False)
class PrunedModel:
    """A pruned model on the CPU, what is left of the dense network in it, and what was written beside it as `info`."""

    model: nn.Module
    remains: Remains
    info: Mapping[str, Any]


def save_pruned(folder: Path, model: nn.Module, remains: Remains, info: Mapping[str, Any]) -> None:
    """Write an artefact that `load_pruned` reads, and every other reader of artefacts."""
    described = {**info, "grouped": remains.traced.grouped}
    artifact.save(folder, model, remains.graph, remains.keep, info=described)


def load_pruned(folder: Path, shared: SharedState) -> PrunedModel:
    """What `save_pruned` wrote.

    Raises:
        ArtifactError: there is none, it is of another network, or it was written without its grouping mode.
    """
    described = artifact.describe(folder)
    info = dict(described["info"])
    grouped = info.pop("grouped", None)
    modes = {"offsets": lambda: shared.offsets, "groups": lambda: shared.whole_groups}
    if grouped not in modes:
        allowed = "a model of a study that this version has begun"
        raise ArtifactError("it does not say what its grouped layers lose", where=str(folder), allowed=allowed)
    traced, ranks = modes[grouped](), described["decomposed"]
    known = set(decomposed(traced.model))
    split = {path: rank for path, rank in ranks.items() if path not in known}
    return PrunedModel(
        model=artifact.load(folder, lambda: shared.model),
        remains=Remains(traced, split, Keep.of(described["keep"])),
        info=info,
    )
