"""A study as tables: one row per outcome, per width, per rung; and the front as a CSV file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from autoprune.errors import InputError
from autoprune.files import write_atomically
from autoprune.study import pareto
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

RECIPE = "recipe."

"""Columns of `trials_frame` that hold a value of the recipe begin with this: `recipe.training.lr`."""


COSTS = {"flops": "FLOPs", "params": "parameters", "activations": "activations", "latency": "latency"}

"""What the costs that a study may trade off are called in sentences."""


SECONDS = "seconds."

"""Columns of `trials_frame` that hold the seconds of one stage begin with this: `seconds.cut`."""


NOTES = "notes."

"""Columns of `trials_frame` that hold what a method told about its cut begin with this: `notes.gap_violated`."""


@dataclass(frozen=True, kw_only=True)
class Dense:
    """The unpruned model, as measured when the study began: accuracy in [0, 1], absolute cost."""

    accuracy: float
    flops: float
    params: float
    activations: float


@dataclass(frozen=True, kw_only=True)
class GroupInfo:
    """A channel group of the dense model; `frozen` says why it was never pruned, or is None."""

    id: str
    size: int
    stage: int
    frozen: str | None


def dense(study: Study) -> Dense:
    """What `study.yaml` says of the dense model; raises `InputError` if it does not."""
    return Dense(**_take(study, study.config.get("dense"), Dense, "dense"))


def groups(study: Study) -> tuple[GroupInfo, ...]:
    """The channel groups in `study.yaml`, frozen ones included; raises `InputError` if they are not there."""
    entries = study.config.get("groups")
    if not isinstance(entries, list):
        raise InputError("missing key 'groups'", where=str(study.folder.config), allowed="a file written by a search")
    return tuple(GroupInfo(**_take(study, entry, GroupInfo, f"groups[{i}]")) for i, entry in enumerate(entries))


def prunable(study: Study) -> list[GroupInfo]:
    """The groups that could be pruned, in the order of the forward pass."""
    return [group for group in groups(study) if group.frozen is None]


def kept(outcome: Outcome, among: Iterable[GroupInfo]) -> list[int]:
    """Kept channels of each group; one that the outcome says nothing of was left whole."""
    return [outcome.widths.get(group.id, group.size) for group in among]


def members(study: Study) -> list[Outcome]:
    """The front in the study's objectives, cheapest first."""
    return pareto.front(study.outcomes, study.objectives)


def main_cost(study: Study) -> str:
    """The cost that accuracy is drawn against: the first among the objectives."""
    return pareto.costs_of(study.objectives)[0]


def cost(study: Study, outcome: Outcome) -> float | None:
    """The main cost of an outcome relative to the dense model; None if it was not measured."""
    return outcome.costs[main_cost(study)]


def last_accuracy(outcome: Outcome) -> float | None:
    """The accuracy of a completed trial; else the one measured last, which a stopped trial was judged by; else None."""
    if outcome.accuracy is not None:
        return outcome.accuracy
    return outcome.rungs[-1].accuracy if outcome.rungs else None


def trials_frame(study: Study) -> pd.DataFrame:
    """One row per outcome, in the order they ended; recipe, stage seconds and notes become dotted columns."""
    on_front = {outcome.id for outcome in members(study)}
    rows = [_trial_row(outcome, outcome.id in on_front) for outcome in study.outcomes]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=_FIXED_COLUMNS)


def widths_frame(study: Study) -> pd.DataFrame:
    """One row per outcome and group it was cut in: id, group, stage, kept, size, share."""
    known = {group.id: group for group in groups(study)}
    rows = [
        (outcome.id, group_id, known[group_id].stage, kept, known[group_id].size, kept / known[group_id].size)
        for outcome in study.outcomes
        for group_id, kept in outcome.widths.items()
    ]
    return pd.DataFrame(rows, columns=["id", "group", "stage", "kept", "size", "share"])


def rungs_frame(study: Study) -> pd.DataFrame:
    """One row per measured rung of every outcome: id, method, status, images, accuracy, seconds."""
    rows = [
        (outcome.id, outcome.recipe.method.name, outcome.status, rung.images, rung.accuracy, rung.seconds)
        for outcome in study.outcomes
        for rung in outcome.rungs
    ]
    return pd.DataFrame(rows, columns=["id", "method", "status", "images", "accuracy", "seconds"])


def write_pareto_csv(study: Study, path: str | Path) -> Path:
    """Write the front of `study` as CSV to `path` (usually `study.folder.pareto`) and return the path.

    A row per member, cheapest first; nothing but the header while the front is empty.

    Raises:
        InputError: `path` cannot be written to.
    """
    table = trials_frame(study)
    front = table[table["on_front"].astype(bool)]
    by_cost = [f"{name}_ratio" for name in pareto.costs_of(study.objectives)]
    front = front.sort_values([*by_cost, "finished"]).dropna(axis="columns", how="all")
    columns = [name for name in _CSV_COLUMNS if name in front] if len(front) else list(_CSV_COLUMNS)
    recipe = [name for name in front if name.startswith(RECIPE) and name != f"{RECIPE}method.name"]
    notes = [name for name in front if name.startswith(NOTES)]
    return write_atomically(path, front.reindex(columns=columns + recipe + notes).to_csv(index=False))


def flatten(mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested mappings as one level with dotted keys; lists stay values, as text."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return flat


_FIXED_COLUMNS = (
    *("id", "method", "status", "control", "on_front", "accuracy", "last_accuracy", "flops_ratio", "params_ratio"),
    *("activations_ratio", "latency_ratio", "latency_ms", "images", "duration", "started", "finished", "worker"),
    *("seed", "error"),
)


_CSV_COLUMNS = (
    *("id", "method", "accuracy", "flops_ratio", "params_ratio", "activations_ratio", "latency_ratio", "latency_ms"),
    *("images", "duration", "finished", "seed", "control"),
)


def _trial_row(outcome: Outcome, on_front: bool) -> dict[str, Any]:
    derived = {
        "method": outcome.recipe.method.name,
        "on_front": on_front,
        "last_accuracy": last_accuracy(outcome),
        "images": outcome.recipe.training.images,
        "duration": outcome.duration,
    }
    row = {name: derived[name] if name in derived else getattr(outcome, name) for name in _FIXED_COLUMNS}
    stages = {f"{SECONDS}{stage}": seconds for stage, seconds in outcome.seconds.items()}
    return row | stages | flatten(outcome.recipe.to_dict(), RECIPE) | flatten(outcome.notes, NOTES)


def _take(study: Study, data: object, cls: type, where: str) -> dict[str, Any]:
    """The entries of `data` that `cls` has fields for; the search may write more beside them."""
    names: Iterable[str] = [field.name for field in fields(cls)]
    if not isinstance(data, Mapping) or any(name not in data for name in names):
        raise InputError(f"expected {', '.join(names)}, found {data!r}", where=f"{study.folder.config}: {where}")
    return {name: data[name] for name in names}
