"""The metric of a study: what the task says, what a space file may add, and the scale of the dense model."""

import dataclasses
import math

import pytest

from autoprune.errors import InputError, ModelError
from autoprune.schema import to_plain
from autoprune.search.study_metric import with_metric, with_scale
from autoprune.study.config import StudyConfig
from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.study.tradeoff import Tradeoff

RMSE = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, unit="cm")
R2 = MetricSpec(name="r2", best=1.0, worst=None)
PSNR = MetricSpec(name="psnr", best=None, worst=0.0, unit="dB")


def config(**top):
    return StudyConfig.from_plain({"task": {}, "space": {"method": "l1", "target": {"flops": 0.5}}, **top})


def test_a_space_file_that_says_nothing_takes_the_task_at_its_word():
    known = with_metric(config(), RMSE)

    assert known.metric == to_plain(RMSE)
    assert known.objectives == ("rmse", "flops")
    assert known.tradeoff == Tradeoff(metric=RMSE)
    assert with_metric(config(), ACCURACY).objectives == ("accuracy", "flops")
    assert with_metric(known, RMSE) == known
    assert StudyConfig.from_plain(known.to_plain()) == known


@pytest.mark.parametrize("objectives", [["params", "metric", "latency"], ["params", "rmse", "latency"]])
def test_the_metric_may_be_called_by_its_name(objectives):
    known = with_metric(config(objectives=objectives, constraints={"metric": "<= 1.5"}), RMSE)

    assert known.objectives == ("params", "rmse", "latency")
    assert known.tradeoff == Tradeoff(metric=RMSE, costs=("params", "latency"), limit=1.5)
    assert known.constraints.metric == 1.5


def test_scale_and_unit_are_the_users_to_say():
    known = with_metric(config(metric={"name": "rmse", "scale": 3, "unit": "mm"}), RMSE)

    assert known.tradeoff.metric == dataclasses.replace(RMSE, scale=3.0, unit="mm")
    assert with_scale(known, 1.7) == known


@pytest.mark.parametrize(
    ("top", "what"),
    [
        ({"metric": {"name": "mae"}}, "metric.name: the task says 'rmse' and the space file 'mae'; allowed: rmse"),
        ({"metric": {"best": -1}}, "metric.best: the task says 0.0 and the space file -1.0"),
        ({"metric": {"worst": 7}}, "metric.worst: the task says None and the space file 7.0"),
        ({"metric": {"direction": "maximize"}}, "metric.direction: the task says 'minimize' and the space file"),
        ({"objectives": ["accuracy", "flops"]}, "objectives: unknown metric 'accuracy'; allowed: metric, rmse"),
        ({"constraints": {"metric": ">= 0.9"}}, "constraints.metric: '>= 0.9' is no limit; allowed: a number or"),
    ],
)
def test_what_contradicts_the_task_is_refused(top, what):
    with pytest.raises(InputError) as caught:
        with_metric(config(**top), RMSE)

    assert str(caught.value).startswith(what)


@pytest.mark.parametrize(
    ("metric", "where"),
    [({"names": "rmse"}, "metric: unknown key 'names'"), ({"best": "high"}, "metric.best: expected a number")],
)
def test_what_no_metric_has_is_refused_as_the_file_is_read(metric, where):
    with pytest.raises(InputError, match=where):
        config(metric=metric)


@pytest.mark.parametrize(("metric", "dense", "scale"), [(RMSE, 1.7, 1.7), (R2, 0.75, 0.25), (PSNR, 31.0, 31.0)])
def test_the_dense_model_has_half_of_all_height(metric, dense, scale):
    known = with_scale(with_metric(config(), metric), dense)

    assert known.tradeoff.metric == dataclasses.replace(metric, scale=scale)
    assert known.tradeoff.metric.height(dense) == 0.5


def test_a_metric_with_two_ends_needs_none():
    known = with_metric(config(), ACCURACY)

    assert with_scale(known, 0.9) == known


@pytest.mark.parametrize(
    ("metric", "dense", "what"),
    [
        (ACCURACY, math.nan, "the accuracy of the dense model on the validation split is nan; allowed: a number, from"),
        (ACCURACY, 91.4, "the accuracy of the dense model on the validation split is 91.4; allowed: a number, from 0"),
        (RMSE, math.inf, "the rmse of the dense model on the validation split is inf; allowed: a number, 0 or more"),
    ],
)
def test_a_dense_model_that_cannot_be_judged(metric, dense, what):
    with pytest.raises(ModelError, match=f"task.model: {what}"):
        with_scale(with_metric(config(), metric), dense)


def test_a_dense_model_without_fault_gives_no_scale():
    with pytest.raises(InputError, match=r"metric.scale: the rmse of the dense model is 0, its best; allowed: a scale"):
        with_scale(with_metric(config(), RMSE), 0.0)
