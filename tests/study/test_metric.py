"""A metric's direction, range and height, by hand arithmetic."""

from __future__ import annotations

import pytest

from autoprune.errors import InputError
from autoprune.study.metric import ACCURACY, MetricSpec

RMSE = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None)
PSNR = MetricSpec(name="psnr", best=None, worst=0.0, unit="dB")


def test_accuracy_is_its_own_height():
    assert ACCURACY.height(0.37) == 0.37
    assert ACCURACY.better(0.5, 0.4)
    assert not ACCURACY.better(0.4, 0.4)
    assert ACCURACY.shown(0.914) == "91.40 %"


def test_a_bounded_metric_to_minimize_is_turned_round():
    error = MetricSpec(name="error", direction="minimize", best=0.0, worst=5.0)
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
