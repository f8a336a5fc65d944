"""The report of a study: one HTML file that needs nothing but a browser, in whatever state the study is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from jinja2 import Environment

from autoprune.analysis.report import (
    comparison,
    contest,
    facts,
    failures,
    figures,
    front_figure,
    lineages,
    metric_words,
    summary,
)
from autoprune.analysis.report.headline import headline_model
from autoprune.analysis.report.importance import Importance, importance
from autoprune.analysis.report.noise import noise_of
from autoprune.analysis.report.packing import packed, packed_plotly
from autoprune.analysis.report.parallel_figure import parallel_figure
from autoprune.analysis.report.peers import Peer
from autoprune.analysis.report.recipe_words import recipe_sentence
from autoprune.analysis.report.retrained import with_finalists
from autoprune.analysis.report.settings import settings_of
from autoprune.analysis.report.spent import spent
from autoprune.analysis.report.templating import templates
from autoprune.analysis.report.trial_data import script_data
from autoprune.analysis.report.trust import trust
from autoprune.analysis.report.words import duration, milliseconds, percent, plural, points
from autoprune.files import write_atomically
from autoprune.study import finalists
from autoprune.study.folder import Study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import DENSE, Outcome

#: The page's own script, part by part.
SCRIPTS = ("page.js", "plots.js", "front.js", "panel.js", "trials.js", "start.js")
LIVE_SCRIPT = "live.js"


def write_report(study: Study, path: str | Path, peers: Sequence[Peer] = ()) -> Path:
    """Write the report of `study` to `path` (usually `study.folder.report`) and return the path.

    The file holds its scripts, styles and data, and forbids itself the network. It appears whole or not at all.

    Args:
        study, path: see above.
        peers: other studies and tables that are laid over it.

    Raises:
        InputError: `study.yaml` lacks what a search writes into it, or `path` cannot be written to.
    """
    return write_atomically(path, render_report(study, peers))


def render_report(study: Study, peers: Sequence[Peer] = (), stamp: str = "") -> str:
    """The report as text.

    Args:
        study, peers: as `write_report` takes them.
        stamp: of a live page: which state of the study it shows; it asks its own server for a newer one.

    Raises:
        InputError: `study.yaml` lacks what a search writes into it.
    """
    environment = _environment(study.metric)
    scripts = (*SCRIPTS, LIVE_SCRIPT) if stamp else SCRIPTS
    script = "\n".join(_template_source(environment, name) for name in scripts)
    context = _page_context(study, environment, tuple(peers))
    return environment.get_template("report.html").render(context, script=script, stamp=stamp, plotly=packed_plotly())


def _environment(metric: MetricSpec) -> Environment:
    """The templates, with filters for numbers and for values of the metric."""
    environment = templates()
    environment.filters |= {"percent": percent, "points": points, "duration": duration, "plural": plural}
    environment.filters |= {"milliseconds": milliseconds}
    shown = {
        "value": metric_words.value_text,
        "difference": metric_words.difference_text,
        "over_seeds": metric_words.over_seeds,
    }
    environment.filters |= {name: partial(show, metric=metric) for name, show in shown.items()}
    return environment


def _page_context(study: Study, environment: Environment, peers: tuple[Peer, ...]) -> dict[str, Any]:
    shown, table = with_finalists(study), [settings_of(outcome.recipe) for outcome in study.outcomes]
    axes, ranked, model = front_figure.axes(shown), importance(study, table), headline_model(shown)
    chosen = model or next(iter(front_figure.measured(study)), None)
    drawn = _figures(study, shown, axes, ranked, peers)
    data = {
        "figures": {name: json.loads(figure.to_json()) for name, figure in drawn.items()},
        "chosen": None if chosen is None else chosen.id,
        **script_data(study, shown, axes, table),
    }
    return {
        "title": summary.title(study),
        "folder": str(study.folder.path),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "summary": summary.summarise(study, shown),
        **_words_context(study),
        **_models_context(study, shown),
        **_search_context(study),
        "failures": failures.failure_kinds(study, table),
        "spent": spent(study, model),
        "axes": axes,
        "peers": peers,
        "standings": comparison.standings(shown, peers),
        "verdicts": comparison.verdicts(shown, peers),
        "importance": ranked,
        "bands": contest.bands(study),
        "noise": noise_of(study),
        "frozen": [group for group in facts.groups(study) if group.frozen is not None],
        "prunable": facts.prunable_groups(study),
        "config": yaml.safe_dump(dict(study.config), sort_keys=False, allow_unicode=True, width=110),
        "data": packed(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        "style": _template_source(environment, "report.css"),
    }


def _words_context(study: Study) -> dict[str, Any]:
    """The metric, the costs and the splits in the words of the page."""
    metric, cost = study.metric, facts.COST_NAMES[facts.main_cost(study)]
    return {
        "metric": metric.name,
        "Metric": metric_words.heading(metric),
        "metrics": metric_words.plural(metric),
        "one_metric": metric_words.one_value(metric),
        "reference": metric_words.reference_text(metric),
        "percent_metric": metric.unit == "%",
        "cost": cost,
        "main_cost": facts.main_cost(study),
        "Cost": cost[0].upper() + cost[1:],
        "objectives": [metric.name, *(facts.COST_NAMES[name] for name in study.tradeoff.costs)],
        "timed": any(outcome.latency_ms is not None for outcome in study.outcomes),
        "timed_how": front_figure.timed_how(study),
        "latency_batch": (study.config.get("latency") or {}).get("batch"),
        "budget": summary.BUDGET,
        "splits": _split_texts(study.config),
        "versions": study.config.get("versions", {}),
        "seed": study.config.get("seed"),
    }


def _models_context(study: Study, shown: Study) -> dict[str, Any]:
    """Models: the dense one, members of the front, finalists."""
    found, members = finalists.by_member(study.finalists, study.metric), shown.front
    again = {one.member: one.validation for one in found}
    return {
        "dense": facts.dense_model(study),
        "dense_control": next((o for o in study.outcomes if o.completed and o.recipe.method.name == DENSE), None),
        "members": [_member_entry(study, member) | {"again": again.get(member.id)} for member in members],
        "any_widths": any(member.widths for member in members),
        "descent": lineages.descent_of_front(shown),
        "measured": front_figure.measured(study),
        "outside_range": _outside_range(shown),
        "finalists": found,
        "against_dense": finalists.against_dense(found),
        "reproduced": {row["trial"]: row["reproduced"] for row in finalists.rows(study)},
        "lost_finalists": finalists.count_lost(study.finalists),
    }


def _search_context(study: Study) -> dict[str, Any]:
    """How the search went."""
    return {
        "outcomes": study.outcomes,
        "failed": sum(outcome.status == "failed" for outcome in study.outcomes),
        "broken": failures.broken_limits(study),
        "methods": summary.method_rows(study),
        "hypervolume": summary.hypervolume(study),
        "shares": summary.shares(study),
        "trust": trust(study),
    }


def _template_source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _figures(
    study: Study,
    shown: Study,
    axes: Sequence[front_figure.Axis],
    ranked: Sequence[Importance],
    peers: Sequence[Peer],
) -> dict[str, go.Figure]:
    """The figures by the place they are drawn in."""
    drawn: dict[str, go.Figure] = {
        "front": front_figure.front_figure(shown, axes[0], peers),
        "methods": figures.methods_figure(study),
        "hypervolume": figures.hypervolume_figure(study),
        "time": figures.time_figure(study),
    }
    if shown.front:
        drawn |= {"widths": figures.widths_heatmap(shown), "parallel": parallel_figure(shown, ranked)}
    return drawn


def _member_entry(study: Study, outcome: Outcome) -> dict[str, Any]:
    where = shlex.quote(str(study.folder.path))
    command = (
        f"autoprune export {where}",
        f"--trial {outcome.id}",
        f"--to trial-{outcome.id}",
    )  # a line may break between
    return {"outcome": outcome, "command": command, "recipe": recipe_sentence(outcome.recipe)}


def _outside_range(study: Study) -> int:
    """How many measured trials lie outside the range that the front is first shown in."""
    low, high = front_figure.metric_ranges(study, study.front)["front"]
    drawn = [facts.last_metric(outcome) for outcome in front_figure.measured(study)]
    return sum(value is not None and not low <= value <= high for value in drawn)


def _split_texts(config: Mapping[str, Any]) -> dict[str, str]:
    data = (config.get("task") or {}).get("data")
    splits = data.get("splits") if isinstance(data, Mapping) else None
    return {str(name): str(value) for name, value in splits.items()} if isinstance(splits, Mapping) else {}
