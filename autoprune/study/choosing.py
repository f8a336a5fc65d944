"""Choosing: which member of a front is handed over, by limits or at the knee; members that were trained again as they
are since then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from autoprune.errors import InputError
from autoprune.study import finalists, pareto
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome


def choose(study: Study, limits: Mapping[str, float], *, searched: bool = False) -> Outcome:
    """A member of the front: the best within limits, as `pareto.pick` takes them, or the knee without any.

    Args:
        study: see above.
        limits: see above.
        searched: as the search left it, even if it was trained again.

    Raises:
        InputError: the front is empty, or nothing fits.
    """
    found = members(study, searched=searched)
    return pareto.pick(found, limits, study.tradeoff) if limits else pareto.knee(found, study.tradeoff)


def members(study: Study, *, searched: bool = False) -> list[Outcome]:
    """The front in which finalists stand in place of what the search had found of them, under the trial's number."""
    again = {} if searched else best_finalists(study)
    return pareto.front([again.get(member.id, member) for member in study.front], study.tradeoff)


def best_finalists(study: Study) -> dict[int, Outcome]:
    """Trial -> its finalist, under the trial's number; the best of its seeds on the validation split."""
    found = finalists.by_member(study.finalists, study.metric)
    return {one.member: dataclasses.replace(one.best, id=one.member) for one in found}


def metric_within(study: Study, points: float) -> float:
    """What a model must reach to lose at most so many points to the dense one, see `MetricSpec.worse_by`.

    The dense model is the one that the search began with, on the validation split.

    Raises:
        InputError: the study does not know that number.
    """
    if study.dense_metric is None:
        what = f"the study does not know the {study.metric.name} of its dense model"
        raise InputError(what, where=str(study.folder.config), allowed="limits in the metric's own unit")
    return study.metric.worse_by(study.dense_metric, points)
