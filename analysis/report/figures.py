"""Figures beside the picture: hypervolume over time, methods compared, widths over the front, all settings, time."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

import numpy as np
import plotly.graph_objects as go

from autoprune.analysis.report import facts, summary
from autoprune.analysis.report.contest import BINS, best_of
from autoprune.analysis.report.front_figure import INK, plain_layout
from autoprune.analysis.report.looks import ALWAYS, COLOURS, GREY, Look, method_looks
from autoprune.analysis.report.metric_words import axis_title, tick_format, value_text
from autoprune.analysis.report.words import percent, plural
from autoprune.study import pareto
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome


def hypervolume_figure(study: Study) -> go.Figure:
    """Hypervolume of the front so far against the time since the study began, a step per trial that widened it."""
    rows = pareto.hypervolume_over_time(study.outcomes, study.tradeoff)
    scale, unit = _time_unit(float(rows[-1, 0]) if len(rows) else 0.0)
    figure = go.Figure(layout=plain_layout(f"Time since the study began ({unit})", "Hypervolume"))
    line = {"shape": "hv", "width": 2}
    hover = f"%{{y:.4f}} after %{{x:.1f}} {unit}<extra></extra>"
    figure.add_trace(
        go.Scatter(x=rows[:, 0] / scale, y=rows[:, 1], mode="lines", line=line, meta=INK, hovertemplate=hover)
    )
    figure.update_layout(showlegend=False, hovermode="x")
    figure.update_xaxes(rangemode="tozero")
    return figure


def methods_figure(study: Study) -> go.Figure:
    """The best of each method in each tenth of the main cost's range; counts and medians are in the hover text."""
    looks = method_looks(outcome.recipe.method.name for outcome in study.outcomes)
    title = axis_title(study.metric, "Best validation")
    figure = go.Figure(layout=plain_layout(_cost_title(study), title))
    figure.add_trace(_dense_in_bins(study))
    for row in summary.method_rows(study):
        own = pareto.candidates((o for o in study.outcomes if o.recipe.method.name == row.name), study.tradeoff)
        cells = _cells_by_bin(own, facts.main_cost(study))
        if cells:
            figure.add_trace(_best_per_bin(row.name, cells, looks[row.name], study))
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=_bin_names())
    figure.update_yaxes(tickformat=tick_format(study.metric))
    return figure


def time_figure(study: Study) -> go.Figure:
    """Seconds of all workers by use: the stages of trials, the rest of trials, between trials."""
    seconds = time_spent(study)
    total = sum(seconds.values()) or 1.0
    names = list(seconds)[::-1]
    text = [f"{seconds[name]:,.1f} s ({percent(seconds[name] / total)})" for name in names]
    figure = go.Figure(layout=plain_layout("Seconds, summed over workers", ""))
    figure.add_trace(
        go.Bar(
            y=[html.escape(name) for name in names],
            x=[seconds[name] for name in names],
            orientation="h",
            text=text,
            textposition="auto",
            hovertemplate="%{y}: %{text}<extra></extra>",
            marker={"color": [GREY if name in _OUTSIDE_STAGES else COLOURS[0] for name in names]},
            cliponaxis=False,
        )
    )
    figure.update_layout(showlegend=False, height=120 + 34 * len(names))
    figure.update_yaxes(automargin=True, showgrid=False)
    return figure


def widths_heatmap(study: Study) -> go.Figure:
    """The share of its channels that every group kept, in every member of the front that was cut; cheapest first."""
    groups, members = facts.prunable_groups(study), [member for member in study.front if member.widths]
    kept = [facts.kept_channels(member, groups) for member in members]
    rows = range(len(groups))
    figure = go.Figure(layout=plain_layout("Members of the front, cheapest first", ""))
    figure.add_trace(
        go.Heatmap(
            x=[f"trial {member.id}" for member in members],
            y=[html.escape(group.id) for group in groups],
            z=[[widths[row] / groups[row].size for widths in kept] for row in rows],
            text=[[f"{widths[row]} of {groups[row].size}" for widths in kept] for row in rows],
            customdata=[[member.id for member in members] for _ in rows],
            hovertemplate="%{y} in %{x}: %{text} channels kept<extra></extra>",
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            colorbar={"tickformat": ".0%", "title": {"text": "kept"}, "thickness": 14},
        )
    )
    figure.update_layout(height=140 + 20 * len(groups))
    figure.update_xaxes(type="category", tickangle=-60, showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure


def time_spent(study: Study) -> dict[str, float]:
    """Seconds summed over all workers: per stage of a trial, for the rest of the trials, and between trials."""
    stages: dict[str, float] = {}
    for outcome in study.outcomes:
        for stage, seconds in outcome.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    inside = sum(outcome.duration for outcome in study.outcomes)
    gaps = sum(share.span - share.inside for share in summary.shares(study))
    rest, between = _OUTSIDE_STAGES
    return {**stages, rest: max(0.0, inside - sum(stages.values())), between: gaps}


_OUTSIDE_STAGES = ("rest of the trials", "between trials")


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds >= 2 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds >= 2 * 60 else (1.0, "seconds")


def _bin_names() -> list[str]:
    return [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in pairwise(BINS)]


def _cells_by_bin(outcomes: Sequence[Outcome], cost: str) -> dict[int, list[Outcome]]:
    cells: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        index = int(np.searchsorted(BINS, outcome.costs[cost] or 0.0, side="left")) - 1
        cells.setdefault(min(max(index, 0), len(BINS) - 2), []).append(outcome)
    return dict(sorted(cells.items()))


def _best_per_bin(method: str, cells: Mapping[int, Sequence[Outcome]], look: Look, study: Study) -> go.Scatter:
    names = _bin_names()
    best = {index: best_of(cell, study) for index, cell in cells.items()}
    return go.Scatter(
        x=[names[index] for index in cells],
        y=[None if one is None else one.metric for one in best.values()],
        mode="lines+markers",
        name=html.escape(method),
        line={"color": look.colour, "width": 1.5, "dash": "dot" if method in ALWAYS else "solid"},
        marker={"size": 8, "symbol": look.symbol},
        hovertext=[_bin_text(method, names[index], cell, study) for index, cell in cells.items()],
        hoverinfo="text",
    )


def _bin_text(method: str, name: str, cell: Sequence[Outcome], study: Study) -> str:
    metric, cost = study.metric, facts.COST_NAMES[facts.main_cost(study)]
    best = max(cell, key=lambda outcome: metric.height(outcome.metric or 0.0))
    middle = median(outcome.metric or 0.0 for outcome in cell)
    numbers = f"best {value_text(best.metric or 0.0, metric, 2)} (trial {best.id})"
    numbers += f", median {value_text(middle, metric, 2)}"
    return f"<b>{html.escape(method)}</b> at {name} {cost}<br>{numbers}<br>{plural(len(cell), 'trial')}"


def _dense_in_bins(study: Study) -> go.Scatter:
    names = _bin_names()
    value = facts.dense_model(study).metric
    name, line = f"dense {value_text(value, study.metric)}", {"dash": "dash", "width": 1.5}
    ends = [names[0], names[-1]]
    return go.Scatter(x=ends, y=[value] * 2, mode="lines", line=line, name=name, meta=INK, hoverinfo="skip")


def _cost_title(study: Study) -> str:
    """`Latency relative to the dense model`."""
    name = facts.COST_NAMES[facts.main_cost(study)]
    return f"{name[0].upper()}{name[1:]} relative to the dense model"
