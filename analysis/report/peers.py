"""What a study is laid beside: other studies, and tables of points that others have measured or published."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoprune.analysis.report import facts
from autoprune.analysis.report.retrained import with_finalists
from autoprune.errors import InputError
from autoprune.study.folder import Study, load_study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome

#: Columns of a table that say what a model costs, and the key of the axis it is drawn on: relative to its dense model,
#: or absolute, with two FLOPs for a multiply-add and milliseconds.
COLUMNS: Mapping[str, str] = {
    **{f"{name}_ratio": name for name in facts.COST_NAMES},
    **{name: f"{name} absolute" for name in facts.COST_NAMES if name != "latency"},
    "latency_ms": "latency_ms",
}

#: Columns that say what a point is called, in the order they are looked for; and where it comes from.
NAMES, SOURCE = ("name", "method", "id"), "source"


@dataclass(frozen=True, kw_only=True)
class PeerPoint:
    """One model of a peer.

    Fields:
        name: of the model.
        metric: in its own unit.
        costs: by the key of the axis that they are drawn on, see `front_figure.Axis`.
        method: of a study, the method that found it; None in a table.
        source: of a published number.
    """

    name: str
    metric: float
    costs: Mapping[str, float]
    method: str | None = None
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A study or a table that a study is laid beside.

    Fields:
        name: of its folder or file.
        points: the members of a study's front, or the rows of a table.
        study: with its finalists in the place of members; None of a table.
    """

    name: str
    points: tuple[PeerPoint, ...]
    study: Study | None = field(default=None, repr=False)


def read_peer(path: Path, metric: MetricSpec) -> Peer:
    """A study's folder, or a CSV file with a column of the metric and at least one of a cost.

    Raises:
        InputError: it is neither, it is of another metric, or a row lacks a number.
    """
    if path.suffix == ".csv":
        return Peer(name=path.stem, points=tuple(_table_points(path, metric)))
    study = load_study(path)
    if (study.metric.name, study.metric.direction) != (metric.name, metric.direction):
        what = f"a study of {study.metric.name}, {study.metric.direction}d"
        raise InputError(what, where=str(path), allowed=f"one of {metric.name}, {metric.direction}d")
    shown = with_finalists(study)
    return Peer(name=path.resolve().name, points=study_points(shown), study=shown)


def study_points(shown: Study) -> tuple[PeerPoint, ...]:
    """The members of a front as points, by rising cost.

    Args:
        shown: a study with its finalists in the place of members.
    """
    dense = facts.dense_model(shown)
    absolute = {"flops": dense.flops, "params": dense.params, "activations": dense.activations}
    return tuple(_member_point(member, absolute) for member in shown.front)


def _member_point(member: Outcome, dense: Mapping[str, float]) -> PeerPoint:
    known = {name: value for name, value in member.costs.items() if value is not None}
    costs = known | {f"{name} absolute": known[name] * whole for name, whole in dense.items() if name in known}
    method = member.recipe.method.name
    return PeerPoint(name=f"trial {member.id}, {method}", metric=member.metric or 0.0, costs=costs, method=method)


def _table_points(path: Path, metric: MetricSpec) -> Iterator[PeerPoint]:
    rows = _read_rows(path)
    columns = list(rows[0]) if rows else []
    if metric.name not in columns or not any(name in columns for name in COLUMNS):
        allowed = f"{metric.name} and at least one of {', '.join(COLUMNS)}; beside them {', '.join((*NAMES, SOURCE))}"
        raise InputError(f"columns {', '.join(columns) or 'none'}", where=str(path), allowed=allowed)
    for line, row in enumerate(rows, 2):
        yield _table_point(row, f"{path}:{line}", metric)


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [{str(key): value or "" for key, value in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a table: {error}", where=str(path), allowed="a CSV file in UTF-8") from None


def _table_point(row: Mapping[str, str], where: str, metric: MetricSpec) -> PeerPoint:
    value = _number(row[metric.name], f"{where}: {metric.name}")
    if not metric.contains(value):
        raise InputError(f"{value!r} is out of range", where=f"{where}: {metric.name}", allowed=metric.range_text())
    given = {name: row[name] for name in COLUMNS if row.get(name)}
    costs = {COLUMNS[name]: _number(text, f"{where}: {name}") for name, text in given.items()}
    negative = next((name for name in given if costs[COLUMNS[name]] < 0), None)
    if negative is not None or not costs:
        what = f"{given[negative]} is out of range" if negative else "no cost"
        raise InputError(what, where=where, allowed=f"0 or more in at least one of {', '.join(COLUMNS)}")
    name = next((row[column] for column in NAMES if row.get(column)), "unnamed")
    return PeerPoint(name=name, metric=value, costs=costs, source=row.get(SOURCE, ""))


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{text!r} is no number", where=where, allowed="a number")
    return value


def best_within(points: Sequence[PeerPoint], cost: str, most: float, metric: MetricSpec) -> PeerPoint | None:
    """The best of the points that cost at most so much, relative to their dense model; None if there is none."""
    affordable = [point for point in points if point.costs.get(cost, math.inf) <= most]
    return max(affordable, key=lambda point: metric.height(point.metric), default=None)
