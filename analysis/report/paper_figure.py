"""The front as a figure for a paper: SVG or PDF, light, as wide as a column, drawn by matplotlib (extra `figures`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.analysis.report import facts
from autoprune.analysis.report.front_figure import Axis, axes, metric_ranges
from autoprune.analysis.report.looks import method_looks
from autoprune.analysis.report.metric_words import axis_title
from autoprune.analysis.report.peers import Peer
from autoprune.analysis.report.retrained import with_finalists
from autoprune.errors import InputError
from autoprune.files import writing, written_whole
from autoprune.study import finalists
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Kinds of files, by the end of their name.
KINDS = (".svg", ".pdf")

#: Inches: a column of a paper of two; text has 8 points.
_SIZE = (3.4, 2.7)

#: matplotlib's marks for plotly's.
_MARKS = {"circle": "o", "square": "s", "triangle-up": "^", "triangle-down": "v", "pentagon": "p", "star": "*"} | {
    "diamond": "D"
}

_STYLE = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "svg.hashsalt": "autoprune",
    "axes.grid": True,
    "grid.linewidth": 0.3,
    "grid.alpha": 0.6,
}


def write_figure(study: Study, path: Path, peers: Sequence[Peer] = ()) -> Path:
    """Draw completed trials, the front with error bars of finalists, and peers to an SVG or PDF file; returns its path.

    Raises:
        InputError: the file is of another kind or cannot be written, or matplotlib is not installed.
    """
    if path.suffix not in KINDS:
        raise InputError(f"unknown kind of figure {str(path)!r}", where="--figure", allowed="a name in .svg or .pdf")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("matplotlib is not installed", where="--figure", allowed="pip install matplotlib") from None
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        _draw(figure.subplots(), with_finalists(study), peers)
        date = "Date" if path.suffix == ".svg" else "CreationDate"  # left out: equal studies give equal files
        with writing(path, "a file in an existing, writable folder"), written_whole(path) as beside:
            figure.savefig(beside, format=path.suffix[1:], metadata={date: None})
    return path


def _draw(on: Axes, study: Study, peers: Sequence[Peer]) -> None:
    axis, looks = axes(study)[0], method_looks(one.recipe.method.name for one in study.outcomes)
    percent = study.metric.unit == "%"
    done = [one for one in study.outcomes if one.completed and one.costs[axis.cost] is not None]
    for name in sorted({one.recipe.method.name for one in done}):
        places = _places([one for one in done if one.recipe.method.name == name], axis, percent)
        mark = {"c": looks[name].colour, "marker": _MARKS[looks[name].symbol], "label": name}
        on.scatter(*places, s=7, alpha=0.5, lw=0, **mark)
    _draw_front(on, study, axis, percent)
    for place, peer in enumerate(peers):
        known = [point for point in peer.points if axis.key in point.costs]
        x, y = [100 * point.costs[axis.key] for point in known], [_height(point.metric, percent) for point in known]
        on.plot(x, y, "+x*1"[place % 4], color="black", ms=5, mew=0.8, label=peer.name)
    dense = _height(facts.dense_model(study).metric, percent)
    on.axhline(dense, color="black", lw=0.6, ls="--", label="dense model")
    low, high = metric_ranges(study, study.front, [point.metric for peer in peers for point in peer.points])["front"]
    on.set(xlim=(0, None), ylim=(_height(low, percent), _height(high, percent)), xlabel=f"{axis.title} (%)")
    on.set_ylabel(axis_title(study.metric, "Validation") + (" (%)" if percent else ""))
    on.legend(loc="lower right", ncols=2, handletextpad=0.2, columnspacing=0.8)


def _draw_front(on: Axes, study: Study, axis: Axis, percent: bool) -> None:
    """The line, its members with a ring, and bars where they were trained again."""
    looks = method_looks(one.recipe.method.name for one in study.outcomes)
    by_id = {one.id: one for one in study.outcomes}
    x, y = _places([by_id[number] for number in axis.line], axis, percent)
    on.step(x, y, where="post", color="black", lw=0.8, zorder=3)
    errors = {one.member: one.validation.std for one in finalists.by_member(study.finalists, study.metric)}
    for member in study.front:
        look, (x, y) = looks[member.recipe.method.name], _places([member], axis, percent)
        on.scatter(x, y, s=22, c=look.colour, marker=_MARKS[look.symbol], edgecolors="black", linewidths=0.7, zorder=4)
        if (std := errors.get(member.id)) is not None:
            on.errorbar(x, y, yerr=_height(std, percent), color=look.colour, lw=0.8, capsize=1.5, zorder=5)


def _places(outcomes: Sequence[Outcome], axis: Axis, percent: bool) -> tuple[list[float], list[float]]:
    x: list[Any] = [one.costs[axis.cost] for one in outcomes]
    return [100 * value for value in x], [_height(one.metric or 0.0, percent) for one in outcomes]


def _height(value: float, percent: bool) -> float:
    return 100 * value if percent else value
