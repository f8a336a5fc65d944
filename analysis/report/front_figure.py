"""The picture of a report: the metric against a cost, a mark per trial, with the axes that a reader may choose.

Figures carry no colours of page or ink; a page sets those, so that they fit a light and a dark one. Traces whose
`meta` is `INK` are to be drawn in the colour of the text.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from autoprune.analysis.report import facts, lineages
from autoprune.analysis.report.looks import GREY, Look, method_looks
from autoprune.analysis.report.metric_words import axis_title, tick_format, value_text
from autoprune.analysis.report.noise import Noise, noise_of
from autoprune.analysis.report.peers import Peer, PeerPoint
from autoprune.study import finalists, pareto
from autoprune.study.folder import Study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome

INK = "ink"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A cost that the metric may be drawn against.

    Fields:
        key: of the choice.
        cost: name of the cost in `Outcome.costs`; times `factor` it is what is drawn.
        title, tick_format: of the axis; the format in the words of d3-format.
        line: trials that no other beats in the metric and this cost, by rising cost.
        low, high: what noise allows their metric to be; empty if that is not known.
    """

    key: str
    cost: str
    factor: float
    title: str
    tick_format: str
    line: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def measured(study: Study) -> list[Outcome]:
    """The outcomes that a plot of the metric against cost can show: they did not fail, and have both numbers."""
    alive = [o for o in study.outcomes if o.status != "failed" and facts.cost_ratio(study, o) is not None]
    return [outcome for outcome in alive if facts.last_metric(outcome) is not None]


def axes(study: Study) -> list[Axis]:
    """The costs that were measured, relative and absolute; the main cost of the study comes first, relative."""
    dense, noise, first = facts.dense_model(study), noise_of(study), facts.main_cost(study)
    absolute = {"flops": dense.flops, "params": dense.params, "activations": dense.activations}
    names = [first, *(name for name in facts.COST_NAMES if name != first and _is_measured(study, name))]
    lines = {name: _line_of(study, name) for name in names}
    relative = [_relative_axis(name, lines[name], noise) for name in names]
    counted = [_absolute_axis(name, absolute[name], lines[name], noise) for name in names if name in absolute]
    if "latency" not in lines or not _is_measured(study, "latency_ms"):
        return relative + counted
    title = f"Latency in ms ({timed_how(study)})"
    return [*relative, *counted, _axis("latency_ms", "latency_ms", 1.0, title, "~g", lines["latency"], noise)]


def timed_how(study: Study) -> str:
    """Where and how latency was measured: `cpu, 4 threads, batch 1, onnxruntime`."""
    runtime, latency = study.config.get("runtime") or {}, study.config.get("latency") or {}
    device = latency.get("device") or runtime.get("device")
    threads = latency.get("threads") or runtime.get("threads") if device == "cpu" else None
    counts = [f"{threads} thread{'s' * (threads != 1)}" if threads else None]
    counts.append(f"batch {latency['batch']}" if latency.get("batch") else None)
    named = [latency.get(name) for name in ("runtime", "dtype") if latency.get(name) != "auto"]
    return ", ".join(str(part) for part in (device, *counts, *named) if part) or "the device that trains"


def front_figure(study: Study, axis: Axis, peers: Sequence[Peer] = ()) -> go.Figure:
    """The metric against a cost of every trial that was measured: colour and shape are the method.

    The line joins the members of the front that no other beats in the two that are drawn: all, if there are no more
    objectives. Stopped trials lie where they were when they were stopped; failed ones are not drawn. Members that were
    trained again have error bars over seeds. `layout.meta.ranges` has the y ranges of `front` (the members and the
    dense model) and of `all`; `customdata` is the trial's number.

    Args:
        study: with its finalists in the place of members, see `retrained.with_finalists`.
        axis: the first of `axes(study)`.
        peers: what is laid over it; their marks have `meta` `peer`, and costs by the keys of axes as `customdata`.
    """
    figure = go.Figure(layout=plain_layout(axis.title, axis_title(study.metric, "Validation")))
    outcomes = {outcome.id: outcome for outcome in study.outcomes}
    figure.add_trace(_noise_band(axis, outcomes))
    figure.add_trace(_front_line(axis, outcomes))
    if steps := lineages.descent_lines(study):
        figure.add_trace(_descent_line(steps, axis.cost))
    for trace in (*_mark_traces(study), *_peer_traces(peers, axis, study.metric)):
        figure.add_trace(trace)
    ranges = metric_ranges(study, study.front, [point.metric for peer in peers for point in peer.points])
    figure.update_layout(meta={"ranges": ranges}, shapes=[_dense_line(study)], annotations=[_dense_label(study)])
    # A cut may cost time: the axis ends beyond 1 then.
    widest = max([1.0, *(facts.cost_ratio(study, outcome) or 0.0 for outcome in measured(study))])
    figure.update_xaxes(range=[0, 1.04 * widest], tickformat=axis.tick_format)
    figure.update_yaxes(range=ranges["front"], tickformat=tick_format(study.metric))
    return figure


def metric_ranges(study: Study, members: Sequence[Outcome], more: Sequence[float] = ()) -> dict[str, list[float]]:
    """The y range that shows the front well, and the one that shows every trial; both show `more` values besides."""
    dense, metric = facts.dense_model(study).metric, study.metric
    near = [*(member.metric or 0.0 for member in members), *more]
    drawn = [facts.last_metric(outcome) or 0.0 for outcome in measured(study)]
    everything = _padded_range([dense, *drawn, *more], metric)
    return {"front": _padded_range([dense, *near], metric) if near else everything, "all": everything}


def plain_layout(x: str, y: str) -> go.Layout:
    """A layout without colours of its own."""
    return go.Layout(
        template=None,
        xaxis={"title": {"text": x}, "zeroline": False, "automargin": True},
        yaxis={"title": {"text": y}, "zeroline": False, "automargin": True},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 30, "b": 48},  # the top leaves room for plotly's buttons
        hoverlabel={"align": "left"},
        legend={"itemsizing": "constant"},
        height=460,
    )


_PEER_SYMBOLS = ("cross-open", "hexagram-open", "bowtie-open", "asterisk-open")

_PEER_DASHES = ("dash", "dot", "dashdot")

_AFTER_THE_LINES = 1001  # traces without a rank of their own have plotly's 1000

_DRAW_ORDER = ("stopped", "completed", "retrained", "control", "front")

_LEGEND_ORDER = ("stopped", "front", "completed", "retrained", "control")


def _is_measured(study: Study, name: str) -> bool:
    return any(outcome.costs[name] is not None for outcome in study.outcomes)


def _relative_axis(name: str, line: Sequence[Outcome], noise: Noise) -> Axis:
    """`Latency relative to the dense model`."""
    return _axis(name, name, 1.0, f"{_capital(name)} relative to the dense model", ".0%", line, noise)


def _absolute_axis(name: str, dense: float, line: Sequence[Outcome], noise: Noise) -> Axis:
    more = " (one multiply-add counts as 2)" if name == "flops" else ""
    return _axis(f"{name} absolute", name, dense, f"{_capital(name)}{more}", "~s", line, noise)


def _capital(name: str) -> str:
    return f"{facts.COST_NAMES[name][0].upper()}{facts.COST_NAMES[name][1:]}"


def _axis(key: str, cost: str, factor: float, title: str, ticks: str, line: Sequence[Outcome], noise: Noise) -> Axis:
    ends = [noise.interval(one.metric or 0.0) for one in line]
    known = [pair for pair in ends if pair is not None]
    return Axis(
        key=key,
        cost=cost,
        factor=factor,
        title=title,
        tick_format=ticks,
        line=tuple(one.id for one in line),
        low=tuple(low for low, _ in known),
        high=tuple(high for _, high in known),
    )


def _line_of(study: Study, cost: str) -> list[Outcome]:
    """Members that no other beats in the metric and this cost; of a cost that was no objective, any trials."""
    pool = study.front if cost in study.tradeoff.costs else study.outcomes
    return pareto.front(pool, replace(study.tradeoff, costs=(cost,)))


def _dense_line(study: Study) -> dict[str, Any]:
    value = facts.dense_model(study).metric
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "name": INK} | {
        "line": {"dash": "dash", "width": 1.5},
        "layer": "below",
    }


def _dense_label(study: Study) -> dict[str, Any]:
    value = facts.dense_model(study).metric
    text = f"dense {value_text(value, study.metric)}"
    place = {"xref": "paper", "x": 0.01, "y": value, "xanchor": "left", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, **place}


def _front_line(axis: Axis, outcomes: Mapping[int, Outcome]) -> go.Scatter:
    """Between two members the front promises the metric of the cheaper one."""
    return go.Scatter(
        x=[outcomes[number].costs[axis.cost] for number in axis.line],
        y=[outcomes[number].metric for number in axis.line],
        mode="lines",
        line={"shape": "hv", "width": 1.5},
        name="front",
        meta=INK,
        hoverinfo="skip",
    )


def _noise_band(axis: Axis, outcomes: Mapping[int, Outcome]) -> go.Scatter:
    """An area around the front line, from its low ends to its high ends and back; hidden until it is asked for."""
    x = [outcomes[number].costs[axis.cost] for number in axis.line] if axis.low else []
    around_x, around_y = _stairs(x, axis.low)
    back_x, back_y = _stairs(x, axis.high)
    return go.Scatter(
        x=[*around_x, *back_x[::-1]],
        y=[*around_y, *back_y[::-1]],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor="rgba(128,128,128,0.22)",
        name="95 % by images",
        meta="noise",
        visible=False,
        hoverinfo="skip",
    )


def _stairs(x: Sequence[float | None], y: Sequence[float]) -> tuple[list[float | None], list[float]]:
    """The corners of steps that are level to the next x."""
    across = [*(value for value in x for _ in (0, 1)), 1.04][1:] if x else []
    return list(across), [value for value in y for _ in (0, 1)]


def _descent_line(steps: Sequence[tuple[Outcome, Outcome]], cost: str) -> go.Scatter:
    """A line from every trial of a lineage to what goes on from it; `customdata` has their numbers."""
    places = [[(one.costs[cost], one.metric, one.id) for one in step] + [(None, None, None)] for step in steps]
    x, y, numbers = zip(*(place for three in places for place in three), strict=True)
    line = {"width": 1, "dash": "dot"}
    name = "lineages"
    return go.Scatter(
        x=x, y=y, ids=[str(number) for number in numbers], mode="lines", line=line, name=name, meta=INK,
        hoverinfo="skip", opacity=0.45,
    )  # fmt: skip


def _mark_traces(study: Study) -> Iterable[go.Scatter]:
    """One trace per method and way to end, those drawn on top last; one of each method stands in the legend."""
    kinds, looks = _by_kind(study), method_looks(outcome.recipe.method.name for outcome in study.outcomes)
    errors = {one.member: one.validation.std for one in finalists.by_member(study.finalists, study.metric)}
    order = sorted(kinds, key=lambda key: (_place(key[1], _DRAW_ORDER), key[0]))
    legend = dict(sorted(kinds, key=lambda key: _place(key[1], _LEGEND_ORDER)))
    ranks = {method: _AFTER_THE_LINES + i for i, method in enumerate(sorted(legend))}
    for method, kind in order:
        rank = ranks[method] if legend[method] == kind else None
        yield _marks(kinds[method, kind], kind, looks[method], rank, study, errors)


def _by_kind(study: Study) -> dict[tuple[str, str], list[Outcome]]:
    on_front = {member.id for member in study.front}
    again = {one.member for one in finalists.by_member(study.finalists, study.metric)}
    kinds: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in measured(study):
        kinds.setdefault((outcome.recipe.method.name, _kind(outcome, on_front, again)), []).append(outcome)
    return kinds


def _kind(outcome: Outcome, on_front: Collection[int], again: Collection[int]) -> str:
    """`stopped`, `completed`, or what else it is: `front control`, `front retrained`."""
    words = ["front"] * (outcome.id in on_front) + ["control"] * outcome.control + ["retrained"] * (outcome.id in again)
    return " ".join(words) or outcome.status


def _place(kind: str, order: Sequence[str]) -> tuple[int, str]:
    return max(order.index(word) for word in kind.split()), kind


def _marker(kind: str, look: Look) -> dict[str, Any]:
    """Members are large with a ring, trials that were stopped are thin crosses."""
    if kind == "stopped":
        return {"symbol": "x-thin", "size": 6, "opacity": 0.8, "color": look.colour, "line": {"width": 1.3}}
    large = 13 if kind.startswith("front") else 11 if kind != "completed" else 7
    ring = {"width": 2} if kind.startswith("front") else {"width": 0.5}
    return {"symbol": look.symbol, "size": large, "opacity": 0.75 if kind == "completed" else 1.0} | {
        "color": look.colour,
        "line": ring,
    }


def _marks(
    outcomes: Sequence[Outcome],
    kind: str,
    look: Look,
    rank: int | None,
    study: Study,
    errors: Mapping[int, float | None],
) -> go.Scatter:
    """Outcomes of one method that ended alike; `rank` is their place in the legend, if they have one."""
    method, cost = html.escape(outcomes[0].recipe.method.name), facts.main_cost(study)
    spread = [errors.get(outcome.id) or 0.0 for outcome in outcomes]
    return go.Scatter(
        x=[outcome.costs[cost] for outcome in outcomes],
        y=[facts.last_metric(outcome) for outcome in outcomes],
        mode="markers",
        name=method,
        legendgroup=method,
        showlegend=rank is not None,
        legendrank=rank,
        marker=_marker(kind, look),
        error_y={"type": "data", "array": spread, "thickness": 1.5, "width": 4} if "retrained" in kind else None,
        hoverinfo="text",
        customdata=[outcome.id for outcome in outcomes],
        meta=kind,
    )


def _peer_traces(peers: Sequence[Peer], axis: Axis, metric: MetricSpec) -> Iterator[go.Scatter]:
    """Hollow marks: of a study in the colours of its methods, joined by a broken line; of a table in ink."""
    looks = method_looks(point.method for peer in peers for point in peer.points if point.method is not None)
    for place, peer in enumerate(peers):
        shapes = [
            f"{looks[point.method].symbol}-open" if point.method else _PEER_SYMBOLS[place % 4] for point in peer.points
        ]
        trace = go.Scatter(
            x=[point.costs.get(axis.key) for point in peer.points],
            y=[point.metric for point in peer.points],
            mode="markers" if peer.study is None else "lines+markers",
            name=html.escape(peer.name),
            marker={"symbol": shapes, "size": 11, "line": {"width": 2}},
            line={"shape": "hv", "width": 1.2, "dash": _PEER_DASHES[place % 3], "color": GREY},
            hoverinfo="text",
            hovertext=[_peer_text(peer, point, metric) for point in peer.points],
            customdata=[dict(point.costs) for point in peer.points],
            meta="peer",
        )
        if peer.study is not None:
            trace.marker.color = [looks[point.method].colour if point.method else GREY for point in peer.points]
        yield trace


def _peer_text(peer: Peer, point: PeerPoint, metric: MetricSpec) -> str:
    lines = (f"<b>{html.escape(peer.name)}</b>: {html.escape(point.name)}", value_text(point.metric, metric, 2))
    return "<br>".join((*lines, html.escape(point.source)))


def _padded_range(values: Sequence[float], metric: MetricSpec) -> list[float]:
    low, high = min(values), max(values)
    whole = abs(metric.best - metric.worst) if metric.best is not None and metric.worst is not None else metric.scale
    margin = max(0.08 * (high - low), 0.005 * (whole or 1.0))
    return [low - margin, high + margin]
