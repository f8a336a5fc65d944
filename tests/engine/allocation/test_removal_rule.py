"""What strategies mean for one graph."""

from __future__ import annotations

import pytest
from nets import Residual, image

from autoprune.engine.allocation.features import feature_weights
from autoprune.engine.allocation.removal_rule import may_lose_units, rule_of
from autoprune.engine.allocation.strategies import Features, Global, Ratios, Strategy, Uniform
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError

GRAPH = trace(Residual(7, 11), image())  # stem.0, a1.0, b1.0
DEPTH = Features(depth=1.5, flops=0.0, stream=0.0, sensitivity=0.0)


@pytest.mark.parametrize(
    ("strategy", "weights", "normalise"),
    [
        (Uniform(), [1, 0, 1], None),
        (Global(normalise="std"), [1, 0, 1], "std"),
        (Ratios(ratios={"b1.*": 0.3, "a1.0": 0.7}), [0, 0, 0.3], None),
        (DEPTH, [feature_weights(GRAPH, DEPTH)["stem.0"], 0, 1], None),
    ],
)
def test_a_group_without_scores_stays_whole_whatever_the_strategy(
    strategy: Strategy, weights: list[float], normalise: str | None
) -> None:
    rule = rule_of(GRAPH, strategy, {"stem.0", "b1.0"})

    assert rule.weights.tolist() == pytest.approx(weights)
    assert rule.normalise == normalise


def test_isomorphic_ranking_is_by_the_mean_inside_classes() -> None:
    rule = rule_of(GRAPH, Global(normalise="isomorphic"), {"stem.0", "b1.0"})

    assert rule.weights.tolist() == [1, 0, 1]
    assert rule.normalise == "mean"
    assert rule.classes is not None
    assert rule.classes.tolist() == [0, 1, 1]
    assert rule_of(GRAPH, Global(normalise="mean"), {"stem.0"}).classes is None


def test_only_ratios_leave_groups_out() -> None:
    measured = Features(depth=0.0, flops=0.0, stream=0.0, sensitivity=2.0)
    scored = {"stem.0", "b1.0"}

    assert may_lose_units(GRAPH, Ratios(ratios={"stage0": 0.5}), scored).tolist() == [True, False, True]
    assert may_lose_units(GRAPH, Ratios(ratios={"a1.0": 0.5, "b1.0": 0.1}), scored).tolist() == [False, False, True]
    for strategy in (Uniform(), Global(normalise="mean"), DEPTH, measured):
        assert may_lose_units(GRAPH, strategy, scored).tolist() == [True, False, True]
    with pytest.raises(InputError, match="measured on data"):
        rule_of(GRAPH, measured, scored)
