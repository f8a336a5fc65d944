"""How far costs exceed constraints, by hand."""

from autoprune.study.constraints import Constraints


def test_how_far_costs_exceed_constraints():
    limits = Constraints(latency_ms=4.0, params=0.5, flops=0.8)
    costs = {"latency_ms": 5.0, "params": 0.25, "flops": None, "activations": 0.9}

    assert limits.excess(costs) == {"params": -0.5, "latency_ms": 0.25}
    assert limits.broken(costs) == "latency_ms 5 > 4"
    assert limits.broken({**costs, "params": 0.75}) == "params 0.75 > 0.5"
    assert limits.broken({**costs, "latency_ms": 4.0}) == ""
