"""All settings and objectives at a glance: a line per trial through one upright axis for each of them.

Drawn as plain lines: plotly's own parallel coordinates build code while they run, which the page forbids.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from autoprune.analysis.report import facts
from autoprune.analysis.report.front_figure import INK, plain_layout
from autoprune.analysis.report.importance import Importance
from autoprune.analysis.report.looks import method_looks
from autoprune.analysis.report.metric_words import value_text
from autoprune.analysis.report.settings import GROUPS, settings_of, varying
from autoprune.analysis.report.words import percent
from autoprune.study import finalists
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

#: Most lines beside those of the front, and most settings beside the method.
MOST_LINES, MOST_SETTINGS = 150, 6

#: Numbers that differ by more than this factor are laid out by their logarithm.
_WIDE = 20


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One upright axis.

    Fields:
        name: over the axis.
        places: of each trial on it, from 0 to 1; None where a trial has no such setting.
        ticks: place -> text.
    """

    name: str
    places: tuple[float | None, ...]
    ticks: dict[float, str]


def parallel_figure(study: Study, ranked: Sequence[Importance]) -> go.Figure:
    """Members of the front in full colour, other completed trials pale.

    Args:
        study: with its finalists in the place of members.
        ranked: settings by importance; the first of them get an axis.
    """
    trials, members = _shown_trials(study), {member.id for member in study.front}
    dimensions = _dimensions(study, trials, [one.name for one in ranked])
    looks = method_looks(outcome.recipe.method.name for outcome in study.outcomes)
    figure = go.Figure(layout=plain_layout("", ""))
    for front in (False, True):
        for name in sorted({one.recipe.method.name for one in trials}):
            chosen = [i for i, o in enumerate(trials) if o.recipe.method.name == name and (o.id in members) == front]
            if chosen:
                figure.add_trace(_lines(name, trials, chosen, dimensions).update(
                    opacity=0.95 if front else 0.25, line={"color": looks[name].colour, "width": 2 if front else 1}
                ))  # fmt: skip
    return _labelled(figure, dimensions)


def _shown_trials(study: Study) -> list[Outcome]:
    members = {member.id for member in study.front}
    done = [one for one in study.outcomes if one.completed and facts.cost_ratio(study, one) is not None]
    others = finalists.evenly_spread([one for one in done if one.id not in members], MOST_LINES)
    return [*others, *(one for one in done if one.id in members)]


def _dimensions(study: Study, trials: Sequence[Outcome], ranked: Sequence[str]) -> list[Dimension]:
    """The method, the settings that explain most and that most trials have, the costs, the metric."""
    settings = [settings_of(one.recipe) for one in trials]
    common = [name for name in varying(settings) if sum(name in one for one in settings) > len(trials) / 2]
    names = [name for name in [*ranked, *common] if name in common and name not in ("method", "seed")]
    names = [name for name in dict.fromkeys(names) if not name.startswith("target.")][:MOST_SETTINGS]
    found = [_setting(name, [one.get(name) for one in settings]) for name in ("method", *names)]
    costs = [
        _numeric(facts.COST_NAMES[name], [one.costs[name] for one in trials], lambda value: percent(value, 0))
        for name in study.tradeoff.costs
    ]
    heights = _numeric(study.metric.name, [one.metric for one in trials], lambda v: value_text(v, study.metric))
    return [*found, *costs, heights]


def _setting(name: str, values: Sequence[Hashable | None]) -> Dimension:
    """Few different values are laid out evenly, in their order; many numbers by their size."""
    known = {value for value in values if value is not None}
    numbers = all(isinstance(value, (int, float)) for value in known)
    if numbers and len(known) > GROUPS:
        return _numeric(name, [float(value) if isinstance(value, (int, float)) else None for value in values], _short)
    texts = [str(value) for value in (sorted(known) if numbers else sorted(known, key=str))]  # type: ignore[type-var]
    place = {text: i / max(len(texts) - 1, 1) for i, text in enumerate(texts)}
    places = tuple(None if value is None else place[str(value)] for value in values)
    return Dimension(name=name, places=places, ticks={at: text for text, at in place.items()})


def _short(value: float) -> str:
    return f"{value:.3g}"


def _numeric(name: str, values: Sequence[float | None], show: Callable[[float], str]) -> Dimension:
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    wide = low > 0 and high / low > _WIDE
    scale: Callable[[float], float] = math.log if wide else float
    span = (scale(high) - scale(low) if known else 0.0) or 1.0
    places = tuple(None if value is None else (scale(value) - scale(low)) / span for value in values)
    return Dimension(name=f"{name} (log)" if wide else name, places=places, ticks={0.0: show(low), 1.0: show(high)})


def _lines(name: str, trials: Sequence[Outcome], chosen: Sequence[int], dimensions: Sequence[Dimension]) -> go.Scatter:
    """The lines of some trials as one trace, with a gap between two of them."""
    x = [place for _ in chosen for place in (*range(len(dimensions)), None)]
    y = [place for i in chosen for place in (*(dimension.places[i] for dimension in dimensions), None)]
    numbers = [trials[i].id for i in chosen for _ in range(len(dimensions) + 1)]
    return go.Scatter(
        x=x, y=y, mode="lines", name=html.escape(name), customdata=numbers, hoverinfo="text",
        hovertext=[f"trial {number}" for number in numbers], connectgaps=False,
    )  # fmt: skip


def _labelled(figure: go.Figure, dimensions: Sequence[Dimension]) -> go.Figure:
    """Names below the axes, values beside them."""
    places = [(i, at, text) for i, dimension in enumerate(dimensions) for at, text in dimension.ticks.items()]
    notes = [
        {"x": i, "y": at, "text": html.escape(text), "showarrow": False, "xanchor": "left", "xshift": 4}
        for i, at, text in places
    ]
    axes = [{"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "name": INK} for i in range(len(dimensions))]
    names = [html.escape(dimension.name).replace(".", ".<br>") for dimension in dimensions]
    figure.update_layout(annotations=notes, shapes=axes, showlegend=False)
    figure.update_xaxes(tickvals=list(range(len(dimensions))), ticktext=names, range=[-0.2, len(dimensions) - 0.4])
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showticklabels=False, showgrid=False, range=[-0.06, 1.06])
    return figure
