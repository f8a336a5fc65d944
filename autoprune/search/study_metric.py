"""The metric of a study: its task's, with what the space file adds, and the scale that the dense model gives it."""

from __future__ import annotations

from dataclasses import replace

from autoprune.errors import InputError, ModelError, check_name
from autoprune.schema import to_plain
from autoprune.study.config import METRIC, StudyConfig
from autoprune.study.metric import MetricSpec, read_metric
from autoprune.study.tradeoff import COSTS

#: What a space file may only repeat of what the task says.
FIXED = ("name", "direction", "best", "worst")


def with_metric(config: StudyConfig, task: MetricSpec) -> StudyConfig:
    """The configuration with the metric of its task: all fields, its name among the objectives, its limit a number.

    Raises:
        InputError: the space file says something else of the metric than the task, an objective is called otherwise,
            or the limit on the metric is on its wrong side.
    """
    metric = read_metric(config.metric, "metric", task)
    for name in FIXED:
        said, known = getattr(metric, name), getattr(task, name)
        if said != known:
            raise InputError(
                f"the task says {known!r} and the space file {said!r}", where=f"metric.{name}", allowed=str(known)
            )
    for name in config.objectives:
        if name not in COSTS:
            check_name(name, (METRIC, metric.name), kind="metric", where="objectives")
    objectives = tuple(metric.name if name == METRIC else name for name in config.objectives)
    constraints = replace(config.constraints, metric=config.constraints.metric_limit(metric))
    return replace(config, metric=to_plain(metric), objectives=objectives, constraints=constraints)


def with_scale(config: StudyConfig, dense: float) -> StudyConfig:
    """The configuration with a scale for a metric with one end: the distance of the dense model from it.

    Args:
        dense: the metric of the dense model on the validation split.

    Raises:
        ModelError: that is no finite number, or out of the metric's range.
        InputError: it is at the metric's one end, and so gives no scale.
    """
    metric = read_metric(config.metric, "metric")
    if not metric.contains(dense):
        what = f"the {metric.name} of the dense model on the validation split is {dense:g}"
        raise ModelError(what, where="task.model", allowed=f"a number, {metric.range_text()}")
    if metric.bounded or metric.scale is not None:
        return config
    if metric.distance(dense) == 0:
        what = f"the {metric.name} of the dense model is {dense:g}, its {'worst' if metric.best is None else 'best'}"
        raise InputError(what, where="metric.scale", allowed="a scale in the space file: the value of a middling model")
    return replace(config, metric={**config.metric, "scale": metric.distance(dense)})
