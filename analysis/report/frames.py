"""A study as tables: one row per outcome, per width, per rung; and the front as a CSV file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from autoprune.analysis.report import facts
from autoprune.files import write_atomically
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

#: Columns of `trials_frame` that hold a value of the recipe begin with this: `recipe.training.lr`.
RECIPE = "recipe."

#: Columns of `trials_frame` that hold the seconds of one stage begin with this: `seconds.cut`.
SECONDS = "seconds."

#: Columns of `trials_frame` that hold what a method told about its cut begin with this: `notes.gap_violated`.
NOTES = "notes."


def trials_frame(study: Study) -> pd.DataFrame:
    """One row per outcome, in the order they ended; recipe, stage seconds and notes become dotted columns.

    The metric has a column by its name, and one of what was measured last: `accuracy` and `last_accuracy`.
    """
    on_front = {outcome.id for outcome in study.front}
    rows = [_trial_row(outcome, outcome.id in on_front, study.metric.name) for outcome in study.outcomes]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=_metric_named(_FIXED_COLUMNS, study.metric.name))


def widths_frame(study: Study) -> pd.DataFrame:
    """One row per outcome and group it was cut in: id, group, stage, kept, size, share."""
    known = {group.id: group for group in facts.groups(study)}
    rows = [
        (outcome.id, group_id, known[group_id].stage, kept, known[group_id].size, kept / known[group_id].size)
        for outcome in study.outcomes
        for group_id, kept in outcome.widths.items()
    ]
    return pd.DataFrame(rows, columns=["id", "group", "stage", "kept", "size", "share"])


def rungs_frame(study: Study) -> pd.DataFrame:
    """One row per measured rung of every outcome: id, method, status, images, the metric by its name, seconds."""
    rows = [
        (outcome.id, outcome.recipe.method.name, outcome.status, rung.images, rung.metric, rung.seconds)
        for outcome in study.outcomes
        for rung in outcome.rungs
    ]
    return pd.DataFrame(rows, columns=["id", "method", "status", "images", study.metric.name, "seconds"])


def write_pareto_csv(study: Study, path: str | Path) -> Path:
    """Write the front of `study` as CSV to `path` (usually `study.folder.pareto`) and return the path.

    A row per member, cheapest first; nothing but the header while the front is empty.

    Raises:
        InputError: `path` cannot be written to.
    """
    front = trials_frame(replace(study, outcomes=tuple(study.front)))
    by_cost = [f"{name}_ratio" for name in study.tradeoff.costs]
    front = front.sort_values([*by_cost, "finished"]).dropna(axis="columns", how="all")
    # What methods have beside their names comes last, as in a table of all trials, which begins with controls.
    front = front[sorted(front.columns, key=lambda name: name.startswith("recipe.method."))]
    wanted = _metric_named(_CSV_COLUMNS, study.metric.name)
    columns = [name for name in wanted if name in front] if len(front) else wanted
    recipe = [name for name in front if name.startswith(RECIPE) and name != f"{RECIPE}method.name"]
    notes = [name for name in front if name.startswith(NOTES)]
    return write_atomically(path, front.reindex(columns=columns + recipe + notes).to_csv(index=False))


def flatten(mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested mappings as one level with dotted keys; lists stay values, as text."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, (dict, Mapping)):  # dict first, which takes a tenth of the time
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return flat


_FIXED_COLUMNS = (
    *("id", "method", "status", "control", "on_front", "metric", "last_metric", "flops_ratio", "params_ratio"),
    *("activations_ratio", "latency_ratio", "latency_ms", "images", "duration", "started", "finished", "worker"),
    *("seed", "error"),
)

_CSV_COLUMNS = (
    *("id", "method", "metric", "flops_ratio", "params_ratio", "activations_ratio", "latency_ratio", "latency_ms"),
    *("images", "duration", "finished", "seed", "control"),
)


def _metric_named(columns: Sequence[str], name: str) -> list[str]:
    """The columns with the metric under its name."""
    names = {"metric": name, "last_metric": f"last_{name}"}
    return [names.get(column, column) for column in columns]


def _trial_row(outcome: Outcome, on_front: bool, metric: str) -> dict[str, Any]:
    derived = {
        "method": outcome.recipe.method.name,
        "on_front": on_front,
        "last_metric": facts.last_metric(outcome),
        "images": outcome.recipe.training.images,
        "duration": outcome.duration,
    }
    values = [derived[name] if name in derived else getattr(outcome, name) for name in _FIXED_COLUMNS]
    row = dict(zip(_metric_named(_FIXED_COLUMNS, metric), values, strict=True))
    stages = {f"{SECONDS}{stage}": seconds for stage, seconds in outcome.seconds.items()}
    return row | stages | flatten(outcome.recipe.to_dict(), RECIPE) | flatten(outcome.notes, NOTES)
