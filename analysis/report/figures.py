"""A study as plotly figures: the front, hypervolume over time, methods compared, widths of a trial, where time went.

Figures carry no colours of page or ink; a page sets those, so that they fit a light and a dark one. Traces whose
`meta` is `INK` are to be drawn in the colour of the text.
"""

from __future__ import annotations

import colorsys
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

import numpy as np
import plotly.graph_objects as go

from autoprune.analysis.report import facts, lineages, summary
from autoprune.analysis.report.metric_words import axis_title, tick_format, value_text
from autoprune.study import pareto
from autoprune.study.folder import Study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome

INK = "ink"

#: Edges of the cost ratios that methods are compared in; a bin holds its upper edge, not its lower one.
BINS = tuple(round(0.1 * i, 1) for i in range(11))

_GREY = "#888888"

_COLOURS = (
    *("#3b82c4", "#e07b2a", "#2f9e6e", "#c2529b", "#8a6fd1", "#c9a227", "#d1495b", "#3aa6b9", "#9a6b4f", "#7a9a2e"),
)


def method_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour per method, the same in every figure of a study; controls are grey."""
    rest = sorted(set(names) - set(summary.ALWAYS))
    more = (_spare_colour(i) for i in range(len(rest) - len(_COLOURS)))
    return {**dict.fromkeys(summary.ALWAYS, _GREY), **dict(zip(rest, (*_COLOURS, *more), strict=False))}


def measured(study: Study) -> list[Outcome]:
    """The outcomes that a plot of the metric against cost can show: they did not fail, and have both numbers."""
    alive = [o for o in study.outcomes if o.status != "failed" and facts.cost_ratio(study, o) is not None]
    return [outcome for outcome in alive if facts.last_metric(outcome) is not None]


def front_figure(study: Study) -> go.Figure:
    """The metric against the main cost of every trial that was measured: colour is the method, symbol how it ended.

    The line joins the members of the front that no other beats in the two that are drawn: all, if there are no more
    objectives. Stopped trials lie where they were when they were stopped; failed ones are not drawn.
    `layout.meta.ranges` has the y ranges of `front` (the members and the dense model) and of `all`; `customdata` is
    the trial's number.
    """
    members, cost = study.front, facts.main_cost(study)
    colours = _colours_of_study(study)
    figure = go.Figure(layout=_plain_layout(_cost_title(study), axis_title(study.metric, "Validation")))
    figure.add_trace(_dense_line(study))
    figure.add_trace(_front_line(pareto.front(members, replace(study.tradeoff, costs=(cost,))), cost))
    if steps := lineages.descent_lines(study):
        figure.add_trace(_descent_line(steps, cost))
    kinds = _by_kind(study, members)
    sizes = {group.id: group.size for group in facts.groups(study)}
    order = sorted(kinds, key=lambda key: (_DRAW_ORDER.index(key[1]), key[0]))
    # One mark per method in the legend: the kind that comes last in the legend's order.
    legend = dict(sorted(kinds, key=lambda key: _LEGEND_ORDER.index(key[1])))
    ranks = {method: _AFTER_THE_LINES + i for i, method in enumerate(sorted(legend))}
    for method, kind in order:
        rank = ranks[method] if legend[method] == kind else None
        figure.add_trace(_marks(kinds[method, kind], kind, colours[method], sizes, rank, study))
    ranges = metric_ranges(study, members)
    figure.update_layout(meta={"ranges": ranges})
    # A cut may cost time: the axis ends beyond 1 then.
    widest = max([1.0, *(facts.cost_ratio(study, outcome) or 0.0 for outcome in measured(study))])
    figure.update_xaxes(range=[0, 1.04 * widest], tickformat=".0%")
    figure.update_yaxes(range=ranges["front"], tickformat=tick_format(study.metric))
    return figure


def hypervolume_figure(study: Study) -> go.Figure:
    """Hypervolume of the front so far against the time since the study began, a step per trial that widened it."""
    rows = pareto.hypervolume_over_time(study.outcomes, study.tradeoff)
    scale, unit = _time_unit(float(rows[-1, 0]) if len(rows) else 0.0)
    figure = go.Figure(layout=_plain_layout(f"Time since the study began ({unit})", "Hypervolume"))
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
    colours = _colours_of_study(study)
    title = axis_title(study.metric, "Best validation")
    figure = go.Figure(layout=_plain_layout(_cost_title(study), title))
    figure.add_trace(_dense_in_bins(study))
    for row in summary.method_rows(study):
        own = pareto.candidates((o for o in study.outcomes if o.recipe.method.name == row.name), study.tradeoff)
        cells = _cells_by_bin(own, facts.main_cost(study))
        if cells:
            figure.add_trace(_best_per_bin(row.name, cells, colours[row.name], study))
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=_bin_names())
    figure.update_yaxes(tickformat=tick_format(study.metric))
    return figure


def time_figure(study: Study) -> go.Figure:
    """Seconds of all workers by use: the stages of trials, the rest of trials, between trials."""
    seconds = time_spent(study)
    total = sum(seconds.values()) or 1.0
    names = list(seconds)[::-1]
    text = [f"{seconds[name]:,.1f} s ({summary.percent(seconds[name] / total)})" for name in names]
    figure = go.Figure(layout=_plain_layout("Seconds, summed over workers", ""))
    figure.add_trace(
        go.Bar(
            y=[html.escape(name) for name in names],
            x=[seconds[name] for name in names],
            orientation="h",
            text=text,
            textposition="auto",
            hovertemplate="%{y}: %{text}<extra></extra>",
            marker={"color": [_GREY if name in _OUTSIDE_STAGES else _COLOURS[0] for name in names]},
            cliponaxis=False,
        )
    )
    figure.update_layout(showlegend=False, height=120 + 34 * len(names))
    figure.update_yaxes(automargin=True, showgrid=False)
    return figure


def widths_figure(study: Study, outcome: Outcome) -> go.Figure:
    """Kept channels per group of one trial: a bar per group that may be pruned, filled as far as it was kept."""
    groups = facts.prunable_groups(study)
    names = [html.escape(group.id) for group in groups]
    kept = facts.kept_channels(outcome, groups)
    shares = [count / group.size for count, group in zip(kept, groups, strict=True)]
    text = [f"{count}/{group.size}" for count, group in zip(kept, groups, strict=True)]
    colour = _colours_of_study(study)[outcome.recipe.method.name]
    figure = go.Figure(layout=_plain_layout("", "Channels kept"))
    whole = {"color": _GREY, "opacity": 0.25}
    figure.add_trace(go.Bar(x=names, y=[1.0] * len(names), marker=whole, name="dense", hoverinfo="skip"))
    hover = "%{x}: %{text} channels kept<extra></extra>"
    bars = go.Bar(x=names, y=shares, text=text, marker={"color": colour}, name="kept", hovertemplate=hover)
    upright = -90 if len(names) > _CROWDED else 0
    figure.add_trace(bars.update(textposition="outside", textangle=upright, constraintext="none", cliponaxis=False))
    figure.update_layout(barmode="overlay", bargap=0.2, showlegend=False, height=420)
    figure.update_xaxes(type="category", automargin=True, tickangle=-60 if len(names) > 6 else 0)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(range=[0, 1.25 if upright else 1.1], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
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


def metric_ranges(study: Study, members: Sequence[Outcome]) -> dict[str, list[float]]:
    """The y range that shows the front well, and the one that shows every trial."""
    dense, metric = facts.dense_model(study).metric, study.metric
    near = [member.metric or 0.0 for member in members]
    drawn = [facts.last_metric(outcome) or 0.0 for outcome in measured(study)]
    everything = _padded_range([dense, *drawn], metric)
    return {"front": _padded_range([dense, *near], metric) if near else everything, "all": everything}


def hover_text(outcome: Outcome, sizes: Mapping[str, int], metric: MetricSpec) -> str:
    """Everything that matters of a trial, in lines for a plotly hover box; text from outside is escaped."""
    value = facts.last_metric(outcome)
    reached = "not measured" if value is None else value_text(value, metric, 2)
    ratios = {text: ratio for name, text in facts.COST_NAMES.items() if (ratio := outcome.costs[name]) is not None}
    costs = ", ".join(f"{text} {summary.percent(ratio)}" for text, ratio in ratios.items())
    costs += "" if outcome.latency_ms is None else f" ({summary.milliseconds(outcome.latency_ms)})"
    lines = [
        f"<b>trial {outcome.id}</b>, {html.escape(outcome.recipe.method.name)}" + " (control)" * outcome.control,
        f"{metric.name} {reached}{_when_stopped(outcome)}",
        costs,
        f"{outcome.recipe.training.images:,} training images, {summary.duration(outcome.duration)}",
        widths_summary(outcome, sizes),
    ]
    return "<br>".join(line for line in lines if line)


def widths_summary(outcome: Outcome, sizes: Mapping[str, int]) -> str:
    """How narrow the groups became, in one line; empty if the trial was never cut."""
    shares = {group: kept / sizes[group] for group, kept in outcome.widths.items() if group in sizes}
    if not shares:
        return ""
    least = min(shares, key=lambda group: shares[group])
    kept = f"{outcome.widths[least]} of {sizes[least]}"
    middle = summary.percent(median(shares.values()), 0)
    return f"{len(shares)} groups, median {middle} kept, least {html.escape(least)}: {kept}"


_AFTER_THE_LINES = 1001  # traces without a rank of their own have plotly's 1000

_CROWDED = 16  # groups beyond which the numbers over their bars are turned to stand side by side

_OUTSIDE_STAGES = ("rest of the trials", "between trials")

_DRAW_ORDER = ("stopped", "completed", "control", "front control", "front")

_LEGEND_ORDER = ("stopped", "front", "completed", "front control", "control")

_MARKERS = {
    "stopped": {"symbol": "x-thin-open", "size": 7, "opacity": 0.8},
    "completed": {"symbol": "circle", "size": 7, "opacity": 0.75},
    "control": {"symbol": "diamond", "size": 11},
    "front control": {"symbol": "diamond", "size": 15, "line": {"width": 2}},
    "front": {"symbol": "circle", "size": 13, "line": {"width": 2}},
}


def _colours_of_study(study: Study) -> dict[str, str]:
    return method_colours(outcome.recipe.method.name for outcome in study.outcomes)


def _spare_colour(index: int) -> str:
    """Colours beyond the chosen ones: hues a golden angle apart, so that neighbours differ."""
    red, green, blue = colorsys.hls_to_rgb((0.05 + 0.618034 * index) % 1, 0.5, 0.5)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _plain_layout(x: str, y: str) -> go.Layout:
    return go.Layout(
        template=None,
        xaxis={"title": {"text": x}, "zeroline": False},
        yaxis={"title": {"text": y}, "zeroline": False},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 36, "b": 56},  # the top leaves room for plotly's buttons
        hoverlabel={"align": "left"},
        legend={"itemsizing": "constant"},
        height=460,
    )


def _cost_title(study: Study) -> str:
    """`Latency relative to the dense model`."""
    name = facts.COST_NAMES[facts.main_cost(study)]
    return f"{name[0].upper()}{name[1:]} relative to the dense model"


def _dense_line(study: Study) -> go.Scatter:
    value = facts.dense_model(study).metric
    name = f"dense {value_text(value, study.metric)}"
    line = {"dash": "dash", "width": 1.5}
    hover = f"dense model: {value_text(value, study.metric, 2)}<extra></extra>"
    return go.Scatter(x=[0, 1.04], y=[value] * 2, mode="lines", line=line, name=name, meta=INK, hovertemplate=hover)


def _front_line(members: Sequence[Outcome], cost: str) -> go.Scatter:
    """Between two members the front promises the metric of the cheaper one."""
    return go.Scatter(
        x=[member.costs[cost] for member in members],
        y=[member.metric for member in members],
        mode="lines",
        line={"shape": "hv", "width": 1.5},
        name="front",
        meta=INK,
        hoverinfo="skip",
    )


def _descent_line(steps: Sequence[tuple[Outcome, Outcome]], cost: str) -> go.Scatter:
    """A line from every trial of a lineage to what goes on from it."""
    places = [[(one.costs[cost], one.metric) for one in step] + [(None, None)] for step in steps]
    x, y = zip(*(place for three in places for place in three), strict=True)
    line = {"width": 1, "dash": "dot"}
    return go.Scatter(x=x, y=y, mode="lines", line=line, name="lineages", meta=INK, hoverinfo="skip", opacity=0.6)


def _by_kind(study: Study, members: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    on_front = {member.id for member in members}
    kinds: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in measured(study):
        words = ["front"] * (outcome.id in on_front) + ["control"] * outcome.control
        kind = " ".join(words) or outcome.status
        kinds.setdefault((outcome.recipe.method.name, kind), []).append(outcome)
    return kinds


def _marks(
    outcomes: Sequence[Outcome], kind: str, colour: str, sizes: Mapping[str, int], rank: int | None, study: Study
) -> go.Scatter:
    """Outcomes of one method that ended alike; `rank` is their place in the legend, if they have one."""
    method, cost = html.escape(outcomes[0].recipe.method.name), facts.main_cost(study)
    return go.Scatter(
        x=[outcome.costs[cost] for outcome in outcomes],
        y=[facts.last_metric(outcome) for outcome in outcomes],
        mode="markers",
        name=method,
        legendgroup=method,
        showlegend=rank is not None,
        legendrank=rank,
        marker={**_MARKERS[kind], "color": colour},
        hovertext=[hover_text(outcome, sizes, study.metric) for outcome in outcomes],
        hoverinfo="text",
        customdata=[outcome.id for outcome in outcomes],
        meta=kind,
    )


def _padded_range(values: Sequence[float], metric: MetricSpec) -> list[float]:
    low, high = min(values), max(values)
    whole = abs(metric.best - metric.worst) if metric.best is not None and metric.worst is not None else metric.scale
    margin = max(0.08 * (high - low), 0.005 * (whole or 1.0))
    return [low - margin, high + margin]


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


def _best_per_bin(method: str, cells: Mapping[int, Sequence[Outcome]], colour: str, study: Study) -> go.Scatter:
    names = _bin_names()
    best = {index: summary.best_of(cell, study) for index, cell in cells.items()}
    return go.Scatter(
        x=[names[index] for index in cells],
        y=[None if one is None else one.metric for one in best.values()],
        mode="lines+markers",
        name=html.escape(method),
        line={"color": colour, "width": 1.5, "dash": "dot" if method in summary.ALWAYS else "solid"},
        marker={"size": 8, "symbol": "diamond" if method in summary.ALWAYS else "circle"},
        hovertext=[_bin_text(method, names[index], cell, study) for index, cell in cells.items()],
        hoverinfo="text",
    )


def _bin_text(method: str, name: str, cell: Sequence[Outcome], study: Study) -> str:
    metric, cost = study.metric, facts.COST_NAMES[facts.main_cost(study)]
    best = max(cell, key=lambda outcome: metric.height(outcome.metric or 0.0))
    middle = median(outcome.metric or 0.0 for outcome in cell)
    numbers = f"best {value_text(best.metric or 0.0, metric, 2)} (trial {best.id})"
    numbers += f", median {value_text(middle, metric, 2)}"
    return f"<b>{html.escape(method)}</b> at {name} {cost}<br>{numbers}<br>{summary.plural(len(cell), 'trial')}"


def _dense_in_bins(study: Study) -> go.Scatter:
    names = _bin_names()
    line = _dense_line(study)
    return line.update(x=[names[0], names[-1]])


def _when_stopped(outcome: Outcome) -> str:
    return (
        f" when stopped after {outcome.rungs[-1].images:,} images"
        if outcome.status == "stopped" and outcome.rungs
        else ""
    )
