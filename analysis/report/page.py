"""The report of a study: one HTML file that needs nothing but a browser, in whatever state the study is."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment
from plotly.offline import get_plotlyjs

from autoprune.analysis.report import facts, figures, frames, lineages, metric_words, summary
from autoprune.analysis.report.templating import templates
from autoprune.files import write_atomically
from autoprune.study import finalists
from autoprune.study.folder import Study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import DENSE, Outcome


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: its text and its key for sorting."""

    text: str
    key: float | str


def write_report(study: Study, path: str | Path, trials: pd.DataFrame | None = None) -> Path:
    """Write the report of `study` to `path` (usually `study.folder.report`) and return the path.

    The file holds its scripts, styles and data, and forbids itself the network. It appears whole or not at all.

    Args:
        study, path: see above.
        trials: the `trials_frame` of the study, if there is one already.

    Raises:
        InputError: `study.yaml` lacks what a search writes into it, or `path` cannot be written to.
    """
    environment, trials = templates(), frames.trials_frame(study) if trials is None else trials
    environment.filters |= {"percent": summary.percent, "points": summary.points, "duration": summary.duration}
    environment.filters |= {"plural": summary.plural, "milliseconds": summary.milliseconds}
    environment.filters |= _metric_filters(study.metric)
    page = environment.get_template("report.html").render(_page_context(study, trials, environment))
    return write_atomically(path, page)


def _metric_filters(metric: MetricSpec) -> dict[str, Any]:
    """How the page shows values of the metric, differences between them, and what finalists have over seeds."""
    words = {
        "value": metric_words.value_text,
        "difference": metric_words.difference_text,
        "over_seeds": metric_words.over_seeds,
    }
    return {name: partial(show, metric=metric) for name, show in words.items()}


def _page_context(study: Study, trials: pd.DataFrame, environment: Environment) -> dict[str, Any]:
    members, timed = study.front, _has_latency(study)
    columns = [column for column in _columns(study) if timed or column[0] not in _TIMES]
    found = finalists.by_member(study.finalists, study.metric)
    return {
        "title": summary.title(study),
        "folder": str(study.folder.path),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "summary": summary.summarise(study),
        "dense": facts.dense_model(study),
        "cost": facts.COST_NAMES[facts.main_cost(study)],
        **_metric_context(study.metric),
        "objectives": [study.metric.name, *(facts.COST_NAMES[name] for name in study.tradeoff.costs)],
        "timed": timed,
        "latency_batch": (study.config.get("latency") or {}).get("batch"),
        "dense_control": next((o for o in study.outcomes if o.completed and o.recipe.method.name == DENSE), None),
        "budget": summary.BUDGET,
        "splits": _split_texts(study.config),
        "outcomes": study.outcomes,
        "failed": sum(outcome.status == "failed" for outcome in study.outcomes),
        "measured": figures.measured(study),
        "outside_range": _outside_range(study, members),
        "members": [_member_entry(study, member) for member in members],
        "descent": lineages.descent_of_front(study),
        "finalists": found,
        "against_dense": finalists.against_dense(found),
        "reproduced": {row["trial"]: row["reproduced"] for row in finalists.rows(study)},
        "lost_finalists": finalists.count_lost(study.finalists),
        "chosen": _first_shown(study, members),
        "shown_trials": _shown_trials(study, members),
        "methods": summary.method_rows(study),
        "hypervolume": summary.hypervolume(study),
        "shares": summary.shares(study),
        "failures": summary.failures(study),
        "columns": [name for name, _ in columns],
        "rows": list(_trial_rows(study, trials, columns)),
        "noted": any(outcome.notes for outcome in study.outcomes),
        "frozen": [group for group in facts.groups(study) if group.frozen is not None],
        "prunable": facts.prunable_groups(study),
        "versions": study.config.get("versions", {}),
        "seed": study.config.get("seed"),
        "config": yaml.safe_dump(dict(study.config), sort_keys=False, allow_unicode=True, width=110),
        "data": _script_data(study, members),
        "plotly": get_plotlyjs(),
        "style": _template_source(environment, "report.css"),
        "script": _template_source(environment, "report.js"),
    }


def _metric_context(metric: MetricSpec) -> dict[str, str]:
    """The metric in the words of the page."""
    return {
        "metric": metric.name,
        "Metric": metric_words.heading(metric),
        "metrics": metric_words.plural(metric),
        "one_metric": metric_words.one_value(metric),
        "reference": metric_words.reference_text(metric),
    }


def _template_source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _script_data(study: Study, members: Sequence[Outcome]) -> dict[str, Any]:
    """Data for the script: figures, and the widths of every trial that was cut, in the order of the groups."""
    drawn = {
        "front": figures.front_figure(study),
        "methods": figures.methods_figure(study),
        "hypervolume": figures.hypervolume_figure(study),
        "time": figures.time_figure(study),
    }
    chosen = _first_shown(study, members)
    if chosen is not None:
        drawn["widths"] = figures.widths_figure(study, chosen)
    return {
        "figures": {name: json.loads(figure.to_json()) for name, figure in drawn.items()},
        "sizes": [group.size for group in facts.prunable_groups(study)],
        "widths": _widths_by_trial(study),
    }


def _widths_by_trial(study: Study) -> dict[int, dict[str, Any]]:
    colours = figures.method_colours(outcome.recipe.method.name for outcome in study.outcomes)
    groups = facts.prunable_groups(study)
    return {
        outcome.id: {
            "kept": facts.kept_channels(outcome, groups),
            "colour": colours[outcome.recipe.method.name],
            "label": _trial_label(study, outcome),
        }
        for outcome in _with_widths(study)
    }


def _with_widths(study: Study) -> list[Outcome]:
    return [outcome for outcome in study.outcomes if outcome.widths]


def _first_shown(study: Study, members: Sequence[Outcome]) -> Outcome | None:
    """The trial whose widths are shown first: the headline's member, else the cheapest, else any trial that was cut."""
    cut = [member for member in members if member.widths]
    cheap = (member for member in cut if (facts.cost_ratio(study, member) or 0.0) <= summary.BUDGET)
    affordable = summary.best_of(cheap, study)
    return next((shown for shown in (affordable, *cut, *_with_widths(study)) if shown is not None), None)


def _shown_trials(study: Study, members: Sequence[Outcome]) -> dict[str, list[tuple[int, str]]]:
    """The choices for the widths chart: front members first, then every other trial that was cut."""
    on_front = {member.id for member in members}
    cut = _with_widths(study)
    return {
        "On the front": [(o.id, _trial_label(study, o)) for o in members if o.widths],
        "Other trials": [
            (o.id, _trial_label(study, o)) for o in sorted(cut, key=lambda o: o.id) if o.id not in on_front
        ],
    }


def _trial_label(study: Study, outcome: Outcome) -> str:
    value, metric = facts.last_metric(outcome), study.metric
    measured = f"no {metric.name}" if value is None else f"{metric_words.value_text(value, metric)} {metric.name}"
    ratio = facts.cost_ratio(study, outcome)
    cost = f" at {summary.percent(ratio)} {facts.COST_NAMES[facts.main_cost(study)]}" if ratio is not None else ""
    ended = "" if outcome.completed else f" ({outcome.status})"
    return f"trial {outcome.id}, {outcome.recipe.method.name}: {measured}{cost}{ended}"


def _member_entry(study: Study, outcome: Outcome) -> dict[str, Any]:
    where = shlex.quote(str(study.folder.path))
    command = (
        f"autoprune export {where}",
        f"--trial {outcome.id}",
        f"--to trial-{outcome.id}",
    )  # a line may break between
    return {"outcome": outcome, "command": command}


def _outside_range(study: Study, members: Sequence[Outcome]) -> int:
    """How many measured trials lie outside the range that the front is first shown in."""
    low, high = figures.metric_ranges(study, members)["front"]
    drawn = [facts.last_metric(outcome) for outcome in figures.measured(study)]
    return sum(value is not None and not low <= value <= high for value in drawn)


def _trial_rows(study: Study, trials: pd.DataFrame, columns: Sequence[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    """The trials table: per outcome the cells of `columns`, the recipe values that differ between trials, its notes."""
    recipes, name = _varying_recipe(trials), study.metric.name
    trials = trials.rename(columns={name: "metric", f"last_{name}": "last_metric"})
    trials = trials.assign(missed=[study.tradeoff.misses(outcome) for outcome in study.outcomes])
    for outcome, row, recipe in zip(study.outcomes, trials.itertuples(), recipes, strict=True):
        cells = [make(row) for _, make in columns[1:-1]]
        notes = ", ".join(_setting_text(name, value) for name, value in outcome.notes.items())
        yield {"id": outcome.id, "cut": bool(outcome.widths), "cells": cells, "recipe": recipe, "notes": notes}


def _has_latency(study: Study) -> bool:
    return any(outcome.latency_ms is not None for outcome in study.outcomes)


def _varying_recipe(table: pd.DataFrame) -> list[str]:
    """One text per row: the values of the recipe that differ between rows, but for method and seed."""
    named = [name for name in table if name.startswith(frames.RECIPE) and name != f"{frames.RECIPE}method.name"]
    varying = [name for name in named if table[name].nunique(dropna=False) > 1 and name != f"{frames.RECIPE}seed"]
    records = table[varying].to_dict("records") if varying else [{} for _ in range(len(table))]
    return [
        ", ".join(_setting_text(name, value) for name, value in record.items() if not _is_missing(value))
        for record in records
    ]


def _setting_text(name: str, value: Any) -> str:
    short = name.removeprefix(frames.RECIPE).removeprefix("training.").removeprefix("method.")
    if isinstance(value, bool):
        return f"{short} {'yes' if value else 'no'}"
    return f"{short} {value:.4g}" if isinstance(value, float) else f"{short} {value}"


def _number_column(name: str, show: Any) -> Any:
    """A column of numbers; an absent one shows a dash and sorts below all others."""

    def make(row: Any) -> Cell:
        value = getattr(row, name)
        return Cell(text=_NONE, key=-1.0) if _is_missing(value) else Cell(text=show(value), key=float(value))

    return make


def _status_cell(row: Any) -> Cell:
    text = "on the front" if row.on_front else row.status
    text += f" ({row.error})" if row.status == "stopped" and isinstance(row.error, str) else ""
    text += " (misses the limit)" if row.missed else ""
    return Cell(text=f"{text} (control)" if row.control else text, key=text)


def _metric_column(metric: MetricSpec) -> Any:
    """The metric, sorted by its value; an absent one is below all others."""
    below_all = -1e308 if metric.contains(-1.0) else -1.0

    def make(row: Any) -> Cell:
        if _is_missing(row.last_metric):
            return Cell(text=_NONE, key=below_all)
        so_far = "" if row.status == "completed" else " so far"
        return Cell(text=f"{metric_words.value_text(row.last_metric, metric, 2)}{so_far}", key=float(row.last_metric))

    return make


def _is_missing(value: Any) -> bool:
    """None, or the NaN that a table has in its place; pandas' own check takes ten times as long for a single value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


_NONE = "\N{EN DASH}"

_TIMES = ("Latency", "ms")


def _columns(study: Study) -> list[tuple[str, Any]]:
    return [
        ("Trial", None),
        ("Method", lambda row: Cell(text=row.method, key=row.method)),
        ("Ended", _status_cell),
        (metric_words.heading(study.metric), _metric_column(study.metric)),
        ("FLOPs", _number_column("flops_ratio", summary.percent)),
        ("Parameters", _number_column("params_ratio", summary.percent)),
        ("Activations", _number_column("activations_ratio", summary.percent)),
        ("Latency", _number_column("latency_ratio", summary.percent)),
        ("ms", _number_column("latency_ms", lambda value: f"{value:,.2f}")),
        ("Images", _number_column("images", lambda value: f"{value:,.0f}")),
        ("Seconds", _number_column("duration", lambda value: f"{value:,.1f}")),
        ("Finished", _number_column("finished", summary.duration)),
        ("Seed", _number_column("seed", lambda value: f"{value:.0f}")),
        ("What was varied", None),
    ]


def _split_texts(config: Mapping[str, Any]) -> dict[str, str]:
    data = (config.get("task") or {}).get("data")
    splits = data.get("splits") if isinstance(data, Mapping) else None
    return {str(name): str(value) for name, value in splits.items()} if isinstance(splits, Mapping) else {}
