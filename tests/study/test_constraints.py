"""How far costs exceed constraints, by hand."""

import pytest

from autoprune.errors import InputError
from autoprune.study.constraints import Constraints
from autoprune.study.metric import ACCURACY, MetricSpec


def test_how_far_costs_exceed_constraints():
    limits = Constraints(latency_ms=4.0, params=0.5, flops=0.8)
    costs = {"latency_ms": 5.0, "params": 0.25, "flops": None, "activations": 0.9}

    assert limits.excess(costs) == {"params": -0.5, "latency_ms": 0.25}
    assert limits.broken(costs) == "latency_ms 5 > 4"
    assert limits.broken({**costs, "params": 0.75}) == "params 0.75 > 0.5"
    assert limits.broken({**costs, "latency_ms": 4.0}) == ""


RMSE = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None)


@pytest.mark.parametrize(
    ("metric", "limit", "found"),
    [
        (ACCURACY, None, None),
        (ACCURACY, 0.9, 0.9),
        (ACCURACY, ">= 0.9", 0.9),
        (ACCURACY, ">=9e-1", 0.9),
        (RMSE, 2, 2.0),
        (RMSE, "<= 1.5", 1.5),
        (RMSE, "<= -1.5", -1.5),
    ],
)
def test_a_limit_on_the_metric(metric, limit, found):
    constraints = Constraints(metric=limit, flops=0.5)

    assert constraints.metric_limit(metric) == found
    assert constraints.limits() == {"flops": 0.5}
    assert constraints.broken({"flops": 0.4}) == ""


@pytest.mark.parametrize(
    ("metric", "limit", "allowed"),
    [
        (ACCURACY, "<= 0.9", 'a number or ">= 0.9": of accuracy larger is better'),
        (RMSE, ">= 1.5", 'a number or "<= 0.9": of rmse smaller is better'),
        (ACCURACY, "high", "a number or"),
        (ACCURACY, True, "a number or"),
        (ACCURACY, float("nan"), "a number or"),
        (ACCURACY, [0.9], "a number or"),
        (ACCURACY, ">= 1.2.3", "a number or"),
    ],
)
def test_a_limit_on_the_wrong_side_or_none_at_all(metric, limit, allowed):
    with pytest.raises(InputError) as caught:
        Constraints(metric=limit).metric_limit(metric)

    assert str(caught.value).startswith(f"constraints.metric: {limit!r} is no limit; allowed: {allowed}")
