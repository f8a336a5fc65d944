"""A metric's direction, range and height, by hand arithmetic."""

from __future__ import annotations

import dataclasses
import math

import pytest

from autoprune.errors import InputError
from autoprune.study.metric import ACCURACY, MetricSpec, read_metric

RMSE = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None)
PSNR = MetricSpec(name="psnr", best=None, worst=0.0, unit="dB")


def test_accuracy_is_its_own_height():
    assert ACCURACY.height(0.37) == 0.37
    assert ACCURACY.better(0.5, 0.4)
    assert not ACCURACY.better(0.4, 0.4)
    assert ACCURACY.shown(0.914) == "91.40 %"


def test_a_bounded_metric_to_minimize_is_turned_round():
    error = MetricSpec(name="miss", direction="minimize", best=0.0, worst=5.0)
    assert error.height(1.25) == 0.75
    assert error.better(1.0, 3.0)


def test_a_metric_with_one_end_has_one_half_at_its_scale():
    rmse = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, scale=3.0)
    assert rmse.height(3.0) == 0.5
    assert rmse.height(0.0) == 1.0
    assert rmse.height(9.0) == 0.25
    psnr = MetricSpec(name="psnr", best=None, worst=0.0, unit="dB", scale=30.0)
    assert psnr.height(30.0) == 0.5
    assert psnr.height(10.0) == 0.25
    assert psnr.shown(28.414) == "28.41 dB"
    assert RMSE.shown(0.07312) == "0.07312"


@pytest.mark.parametrize("metric", [RMSE, PSNR], ids=lambda metric: metric.name)
def test_without_a_scale_a_metric_with_one_end_has_no_height(metric):
    assert not metric.bounded
    with pytest.raises(InputError, match="one end and no scale"):
        metric.height(1.0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"best": None, "worst": None}, "range without ends"),
        ({"best": 0.0, "worst": 1.0}, "goes from 1 to 0"),
        ({"direction": "minimize"}, "goes from 0 to 1"),
        ({"best": 0.0, "worst": None, "direction": "minimize", "scale": 0.0}, "scale 0"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(fields, reason):
    with pytest.raises(InputError, match=reason):
        MetricSpec(**fields)


R2 = MetricSpec(name="r2", best=1.0, worst=None, scale=0.5)


@pytest.mark.parametrize(
    ("metric", "value", "height"),
    [
        (ACCURACY, 0.37, 0.37),
        (MetricSpec(name="miss", direction="minimize", best=0.0, worst=5.0), 1.25, 0.75),
        (MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None, scale=3.0), 9.0, 0.25),
        (MetricSpec(name="psnr", best=None, worst=0.0, scale=30.0), 10.0, 0.25),
        (MetricSpec(name="flaw", direction="minimize", best=None, worst=7.0, scale=2.0), 1.0, 0.75),
        (R2, 0.75, 2 / 3),
        (R2, -0.5, 0.25),
    ],
)
def test_a_height_has_its_value(metric, value, height):
    assert metric.height(value) == pytest.approx(height, rel=1e-12)
    assert metric.at_height(height) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("metric", "inside", "outside", "text"),
    [
        (ACCURACY, [0.0, 1.0, 1.0000001], [-0.1, 91.4, math.nan, math.inf], "from 0 to 1"),
        (RMSE, [0.0, 1e9], [-0.5, math.nan, math.inf], "0 or more"),
        (R2, [1.0, -17.0], [1.5, -math.inf], "1 or less"),
    ],
)
def test_what_lies_in_its_range(metric, inside, outside, text):
    assert [metric.contains(value) for value in (*inside, *outside)] == [True] * len(inside) + [False] * len(outside)
    assert metric.range_text() == text


def test_a_wish_beyond_the_end_is_at_it():
    assert [RMSE.distance(value) for value in (-0.5, 0.0, 0.7)] == [0.0, 0.0, 0.7]
    assert [R2.distance(value) for value in (1.5, 1.0, -2.0)] == [0.0, 0.0, 3.0]
    assert [PSNR.distance(value) for value in (-7.0, 0.0, 30.0)] == [0.0, 0.0, 30.0]


def test_limits_are_reached_from_the_good_side():
    assert [ACCURACY.reaches(value, 0.7) for value in (0.69, 0.7, 0.71)] == [False, True, True]
    assert [RMSE.reaches(value, 1.5) for value in (1.4, 1.5, 1.6)] == [True, True, False]
    assert (ACCURACY.wish(0.7), RMSE.wish(1.5)) == ("accuracy >= 0.7", "rmse <= 1.5")


def test_differences_in_words():
    assert ACCURACY.shown_difference(0.0261) == "+2.6 points"
    assert PSNR.shown_difference(-0.4137) == "-0.414 dB"
    assert RMSE.shown_difference(0.07) == "+0.07"


@pytest.mark.parametrize("name", ["", "mean iou", "0.5", "flops", "error", "rungs"])
def test_names_that_logs_cannot_have(name):
    with pytest.raises(InputError, match=f"a metric cannot be called {name!r}; allowed: a letter"):
        MetricSpec(name=name)


def test_a_task_is_completed_by_what_is_said_of_it():
    task = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None)

    assert read_metric({"scale": 7}, "metric", task) == dataclasses.replace(task, scale=7.0)
    assert read_metric({}, "metric") == ACCURACY
    with pytest.raises(InputError, match=r"^here: metric 'rmse' has scale -1"):
        read_metric({"scale": -1}, "here", task)
    with pytest.raises(InputError, match=r"^here: unknown key 'scales'"):
        read_metric({"scales": 1}, "here", task)
