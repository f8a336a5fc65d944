"""What the page's script knows of every trial: columns of plain data, a value per trial in the order they ended."""

from __future__ import annotations

import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autoprune.analysis.report import facts
from autoprune.analysis.report.front_figure import Axis, timed_how
from autoprune.analysis.report.looks import method_looks
from autoprune.analysis.report.metric_words import difference_text, over_seeds, value_text
from autoprune.analysis.report.noise import noise_of
from autoprune.analysis.report.recipe_words import recipe_sentence
from autoprune.analysis.report.settings import setting_text, varying
from autoprune.study import finalists
from autoprune.study.folder import Study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import DENSE, Outcome

#: Digits that numbers are written with: enough for every table, and a third of the page's size.
_DIGITS = 6


def script_data(
    study: Study, shown: Study, axes: Sequence[Axis], table: Sequence[Mapping[str, Hashable]]
) -> dict[str, Any]:
    """All that the script shows of trials.

    Args:
        study: as the search left it.
        shown: with its finalists in the place of members.
        axes: that the reader may choose.
        table: the settings of each outcome.
    """
    groups = facts.prunable_groups(study)
    looks = method_looks(outcome.recipe.method.name for outcome in study.outcomes)
    return {
        "metric": _metric(study.metric),
        "dense": _dense(study),
        "folder": shlex.quote(str(study.folder.path)),
        "noise": asdict(noise_of(study)),
        "timed_how": timed_how(study),
        "axes": [asdict(axis) for axis in axes],
        "looks": {name: asdict(look) for name, look in looks.items()},
        "groups": [{"id": group.id, "size": group.size, "stage": group.stage} for group in groups],
        "finalists": _finalists(study),
        "trials": _columns(study, shown, groups, table),
    }


def _metric(metric: MetricSpec) -> dict[str, Any]:
    return {"name": metric.name, "unit": metric.unit, "up": metric.direction == "maximize"}


def _dense(study: Study) -> dict[str, float | None]:
    dense = facts.dense_model(study)
    return {"metric": dense.metric, **{name: getattr(dense, name) for name in ("flops", "params", "activations")}}


def _columns(
    study: Study, shown: Study, groups: Sequence[facts.ChannelGroup], table: Sequence[Mapping[str, Hashable]]
) -> dict[str, list[Any]]:
    outcomes, members = shown.outcomes, {member.id for member in shown.front}
    costs = {name: [_short(one.costs[name]) for one in outcomes] for name in (*facts.COST_NAMES, "latency_ms")}
    costs |= {name: [_short(getattr(one, name)) for one in outcomes] for name in ("latency_low", "latency_high")}
    return {
        "id": [one.id for one in outcomes],
        "method": [one.recipe.method.name for one in outcomes],
        "ended": [_ended(one, one.id in members, study) for one in outcomes],
        "metric": [_short(facts.last_metric(one)) for one in outcomes],
        "done": [_may_be_chosen(one, study) for one in outcomes],
        **costs,
        "images": [one.recipe.training.images for one in outcomes],
        "seconds": [_short(one.duration) for one in outcomes],
        "finished": [_short(one.finished) for one in outcomes],
        "seed": [one.seed for one in outcomes],
        "parent": [one.recipe.parent for one in outcomes],
        "recipe": [recipe_sentence(one.recipe) for one in outcomes],
        "varied": _varied(table),
        "notes": [", ".join(setting_text(name, value) for name, value in one.notes.items()) for one in outcomes],
        "error": [one.error for one in outcomes],
        "rungs": [[[rung.images, _short(rung.metric)] for rung in one.rungs] for one in outcomes],
        "kept": [facts.kept_channels(one, groups) if one.widths else None for one in outcomes],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _may_be_chosen(outcome: Outcome, study: Study) -> int:
    """1 for a pruned model that may be handed over, else 0."""
    return int(outcome.completed and outcome.recipe.method.name != DENSE and not study.tradeoff.misses(outcome))


def _ended(outcome: Outcome, on_front: bool, study: Study) -> str:
    text = "on the front" if on_front else outcome.status
    text += f" ({outcome.error})" if outcome.status == "stopped" and outcome.error else ""
    text += " (misses the limit)" if study.tradeoff.misses(outcome) else ""
    return f"{text} (control)" if outcome.control else text


def _varied(table: Sequence[Mapping[str, Hashable]]) -> list[str]:
    """One text per recipe: the values that differ between recipes, but for method and seed."""
    names = [name for name in varying(table) if name not in ("method", "seed")]
    return [", ".join(setting_text(name, one[name]) for name in names if one.get(name) is not None) for one in table]


def _finalists(study: Study) -> dict[int, dict[str, Any]]:
    """What the panel says of a member that was trained again."""
    found = finalists.by_member(study.finalists, study.metric)
    above, searched = finalists.against_dense(found), {one.id: one.metric for one in study.outcomes}
    return {one.member: _finalist(one, above[one.member], searched.get(one.member)) for one in found}


def _finalist(one: finalists.Finalist, above: float | None, searched: float | None) -> dict[str, Any]:
    metric = one.metric
    said: Mapping[str, Any] = {
        "seeds": len(one.runs),
        "images": one.images,
        "test": over_seeds(one.test, metric, 2),
        "validation": over_seeds(one.validation, metric, 2),
        "above": None if above is None or one.dense else difference_text(above, metric),
        "searched": None if searched is None else value_text(searched, metric, 2),
    }
    return dict(said)
